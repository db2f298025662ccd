"""Who subscribed to a board in one format, and what each of them was sent last.

Nearly all subscribers have the newest frames at nearly any time, and their sockets have room for the next. They are
kept in batches, by descriptor: a loop over bare descriptors does not touch each viewer's objects, which saves an eighth
of what a message costs. All others are single: they are new, or behind, or another writer uses their socket.

The contract of the descriptors:

1. A socket owns its descriptor. A batch only borrows it, by `Socket.acquire_fd`. That fails while another writer uses
   the socket, while bytes are left over, and while another batch has it.
2. A subscriber is in one place: in one batch, or among the singles. A socket is in one batch at most, of whatever
   board; a viewer of two boards is single on one of them.
3. A descriptor leaves its batch by `on_fd_lost(fd)`. The socket calls that in the step in which it gets busy, breaks
   or closes. `release_fd` has the same effect, when a viewer unsubscribes or changes its format.
4. A viewer that leaves a batch is single from that step on, and counts as sent what the batch was sent last.
5. So each descriptor in a batch is open and belongs to its member. The kernel may give the number of a closed one to
   another connection; it has left its batch before that, and nothing awaits between two writes of a batch.
6. No member has pending events. An event waits only when the socket refused it, and a refusal means rule 3.
7. After a short write the batch calls `Socket.finish_partial_write`, which has the rest written and means rule 3. The
   viewer counts as sent if the kernel took a part, and as not sent if it took nothing.
8. A failed write releases the descriptor. The task that reads that socket finds out why.
9. A single that has the newest frames joins a batch with the next broadcast, if rule 1 allows it.

Bound: there are as many batches as were full at once. Empty ones are used again. No frames are queued anywhere: a
viewer that misses some gets the newest later.
"""

from collections.abc import Iterator
from itertools import chain

from scoreboard.live.frame_set import FrameFormat, FrameSet, LastSent
from scoreboard.live.viewer import Viewer
from scoreboard.net.sockets import write_to_all

BATCH_SIZE = 128  # writes in one step, about 1 ms


class FanOutBatch:
    """Up to BATCH_SIZE viewers who were sent the same, by descriptor."""

    __slots__ = ("_on_fd_lost", "_singles", "last_sent", "members")

    def __init__(self, singles: dict[Viewer, LastSent], last_sent: int) -> None:
        self.members: dict[int, Viewer] = {}
        self.last_sent = last_sent
        self._singles = singles
        self._on_fd_lost = self._move_to_singles  # one method object for all members

    def add(self, viewer: Viewer) -> None:
        """Moves a single here, unless its descriptor can't be borrowed (rule 1)."""
        if viewer.socket.acquire_fd(self._on_fd_lost):
            self.members[viewer.socket.fd] = viewer
            del self._singles[viewer]

    def write(self, frames: bytes, serial: int) -> None:
        """Writes the frames of this serial to all members. b"": there is nothing to write."""
        partly_sent = []
        for fd, written in write_to_all(self.members, frames) if frames else ():
            viewer = self.members[fd]
            if written < 0:
                viewer.socket.release_fd()
            elif viewer.socket.finish_partial_write(frames, written):
                partly_sent.append(viewer)
        self.last_sent = serial
        for viewer in partly_sent:
            self._singles[viewer] = serial

    def _move_to_singles(self, fd: int) -> None:
        self._singles[self.members.pop(fd)] = self.last_sent


class Subscribers:
    """The viewers of one board in one format. Every method is atomic but `broadcast`, which goes in portions."""

    __slots__ = ("_batches", "_format", "_singles")

    def __init__(self, frame_format: FrameFormat) -> None:
        self._format = frame_format
        self._singles: dict[Viewer, LastSent] = {}
        self._batches: list[FanOutBatch] = []

    def __len__(self) -> int:
        return len(self._singles) + sum(len(batch.members) for batch in self._batches)

    def __iter__(self) -> Iterator[Viewer]:
        return chain(self._singles, *(batch.members.values() for batch in self._batches))

    def add(self, viewer: Viewer, last_sent: LastSent) -> None:
        """Makes the viewer a subscriber that counts as sent `last_sent`."""
        self._singles[viewer] = last_sent

    def discard(self, viewer: Viewer) -> None:
        """Ends the viewer's subscription. Idempotent."""
        # It leaves its batch, even one of another board. It joins that batch again with the next broadcast there.
        viewer.socket.release_fd()
        self._singles.pop(viewer, None)

    def send_latest(self, viewer: Viewer, frame_set: FrameSet) -> bool:
        """Sends it the newest frames. True: it has them now. False: it can't take them, or is in a batch, or is no
        subscriber."""
        last_sent = self._singles.get(viewer)
        if last_sent is None or viewer.pending is not None:
            return False
        if last_sent != frame_set.serial:
            frames = self._frames(frame_set, last_sent)
            if frames and not viewer.socket.send_now(frames):
                return False
            self._singles[viewer] = frame_set.serial
        return True

    def broadcast(self, frame_set: FrameSet) -> Iterator[int]:
        """Sends everyone the newest frames who can take them. Yields after each portion: how many were in it.

        One call at a time. Viewers may come and go between two portions. A call that is not finished leaves some with
        older frames; the next call sends them whole boards.
        """
        for batch in self._batches:
            size = len(batch.members)  # before the write, because a member that can't take it leaves
            batch.write(self._frames(frame_set, batch.last_sent) if size else b"", frame_set.serial)
            yield size
        batches = self._batches_with_room(frame_set.serial)  # by now all of them were sent this
        singles = tuple(self._singles)
        for start in range(0, len(singles), BATCH_SIZE):
            portion = singles[start : start + BATCH_SIZE]
            for viewer in portion:
                if self.send_latest(viewer, frame_set):
                    next(batches).add(viewer)
            yield len(portion)

    def _frames(self, frame_set: FrameSet, last_sent: LastSent) -> bytes:
        if last_sent == frame_set.serial - 1 and last_sent != 0:  # 0: nothing was sent yet
            return frame_set.update(self._format)
        return frame_set.catch_up(self._format, last_sent)

    def _batches_with_room(self, last_sent: int) -> Iterator[FanOutBatch]:
        """Each batch until it is full, then new ones, which count as sent this."""
        for batch in self._batches:
            while len(batch.members) < BATCH_SIZE:
                yield batch
        while True:
            batch = FanOutBatch(self._singles, last_sent)
            self._batches.append(batch)
            while len(batch.members) < BATCH_SIZE:
                yield batch
