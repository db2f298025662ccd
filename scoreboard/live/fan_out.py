"""Who subscribed to a board in one form, and what each of them was handed last.

Nearly all, nearly always, have the newest frames and take the next at once. They are kept in groups, by the descriptors
that their sockets lend: a loop over bare descriptors saves reaching for each viewer's objects all over the memory, an
eighth of what a message costs. The others are new, behind, or being written to by somebody else: each is handed what it
lacks, and joins a group when it has it.
"""

from collections.abc import Iterator
from itertools import chain

from scoreboard.live.frame_set import FrameFormat, FrameSet, Handed
from scoreboard.live.viewer import Viewer
from scoreboard.net.sockets import write_to_all

PORTION = 128  # writes in one step, about 1 ms


class FanOutBatch:
    """Up to PORTION viewers who were handed the same, by descriptor. Whose socket takes it back is among the others in
    that step; so no member has anything pending: for that its socket had to refuse."""

    __slots__ = ("_others", "_when_reclaimed", "handed", "members")

    def __init__(self, others: dict[Viewer, Handed], handed: int) -> None:
        self.members: dict[int, Viewer] = {}
        self.handed = handed
        self._others = others
        self._when_reclaimed = self._left  # one method object for all members

    def admit(self, viewer: Viewer) -> None:
        """Unless its socket is busy, or lent for another board."""
        if viewer.socket.acquire_fd(self._when_reclaimed):
            self.members[viewer.socket.fd] = viewer
            del self._others[viewer]

    def hand(self, frames: bytes, serial: int) -> None:
        """Gives all of them the frames of this serial; b"" to none."""
        begun = []
        for fd, written in write_to_all(self.members, frames) if frames else ():
            viewer = self.members[fd]
            if written < 0:
                viewer.socket.release_fd()
            elif viewer.socket.finish_partial_write(frames, written):
                begun.append(viewer)
        self.handed = serial
        for viewer in begun:  # a part: the rest follows
            self._others[viewer] = serial

    def _left(self, fd: int) -> None:
        self._others[self.members.pop(fd)] = self.handed


class Subscribers:
    """The viewers of one board in one form. Every method is atomic but `hand_all`, which is in portions."""

    __slots__ = ("_form", "_groups", "_others")

    def __init__(self, form: FrameFormat) -> None:
        self._form = form
        self._others: dict[Viewer, Handed] = {}
        self._groups: list[FanOutBatch] = []  # as many as were needed at once: an empty one is used again

    def __len__(self) -> int:
        return len(self._others) + sum(len(group.members) for group in self._groups)

    def __iter__(self) -> Iterator[Viewer]:
        return chain(self._others, *(group.members.values() for group in self._groups))

    def add(self, viewer: Viewer, handed: Handed) -> None:
        """It is a subscriber from now on, and has been handed this."""
        self._others[viewer] = handed

    def discard(self, viewer: Viewer) -> None:
        """Idempotent."""
        viewer.socket.release_fd()  # so it is in no group, of any board; another's takes it back with its next frames
        self._others.pop(viewer, None)

    def hand(self, viewer: Viewer, prepared: FrameSet) -> bool:
        """Gives it the newest frames. True: it has them now. False: it can't take them, or is in a group, or no
        subscriber."""
        handed = self._others.get(viewer)
        if handed is None or viewer.pending is not None:
            return False
        if handed != prepared.serial:
            frames = self._frames(prepared, handed)
            if frames and not viewer.socket.send_now(frames):
                return False
            self._others[viewer] = prepared.serial
        return True

    def hand_all(self, prepared: FrameSet) -> Iterator[int]:
        """Gives everyone the newest frames who can take them. Yields after each portion: how many were in it.

        One call at a time. Viewers may come and go between two portions. Leaving it half-way leaves some with older
        frames, until the next.
        """
        for group in self._groups:
            size = len(group.members)  # now: who could not take them is no member afterwards
            group.hand(self._frames(prepared, group.handed) if size else b"", prepared.serial)
            yield size
        groups = self._with_room(prepared.serial)  # by now all of them were handed this
        others = tuple(self._others)
        for start in range(0, len(others), PORTION):
            portion = others[start : start + PORTION]
            for viewer in portion:
                if self.hand(viewer, prepared):
                    next(groups).admit(viewer)
            yield len(portion)

    def _frames(self, prepared: FrameSet, handed: Handed) -> bytes:
        if handed == prepared.serial - 1 and handed != 0:  # 0: that is what a viewer has who was handed nothing
            return prepared.update(self._form)
        return prepared.catch_up(self._form, handed)

    def _with_room(self, handed: int) -> Iterator[FanOutBatch]:
        """Each group until it is full, then new ones, that were `handed` this."""
        for group in self._groups:
            while len(group.members) < PORTION:
                yield group
        while True:
            group = FanOutBatch(self._others, handed)
            self._groups.append(group)
            while len(group.members) < PORTION:
                yield group
