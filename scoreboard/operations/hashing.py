"""The queue in front of password hashing: a hash takes 100 to 250 ms of a core and 64 MiB, so few run at once and few
may wait.

`reserve` decides and takes the place in one step, and awaits nothing in between: however many ask at once,
MAX_HASHING + MAX_WAITING get one. Browsers that are known (device cookie) have places that nobody else gets, and are
served first. A place is given back when its block ends, by a cancellation too.
"""

import os
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar
from uuid import UUID

import trio

from scoreboard.runtime.background_threads import BackgroundThreads

ARGON2_LANES = 4  # threads of one hash
# Passwords hashed at once: more than the cores can take finish no earlier, and the event loop has to wait for the
# memory that they move.
MAX_HASHING = 2 if (os.cpu_count() or 1) >= 2 * ARGON2_LANES else 1
# places in line, two to six seconds of work for two cores; full: refused. A class of thirty finds places at once
MAX_WAITING = 48
RESERVED_FOR_KNOWN = 12  # of these, for browsers that have logged in before: a flood of strangers leaves them a quarter

T = TypeVar("T")


class HashingQueue:
    """`hashing`, `waiting`, `reserved`: as MAX_HASHING, MAX_WAITING, RESERVED_FOR_KNOWN."""

    def __init__(
        self, hashing: int = MAX_HASHING, waiting: int = MAX_WAITING, reserved: int = RESERVED_FOR_KNOWN
    ) -> None:
        self._places, self._strangers_places = hashing + waiting, hashing + waiting - reserved
        self._in_use = self._strangers = 0  # places; those of them that are no known browser's
        # users with a place as a known browser: one place each, so that a stolen device cookie can't fill them all
        self._users: set[UUID] = set()
        self._idle = hashing  # hashes that may begin now
        self._known_line: deque[trio.Event] = deque()  # together at most `waiting`
        self._strangers_line: deque[trio.Event] = deque()
        self._threads = BackgroundThreads(hashing)

    @property
    def in_use(self) -> int:
        """Places in use, those of running hashes included."""
        return self._in_use

    def reserve(self, *, known: bool = False) -> "Place | None":
        """A place, to be left with `with`; None when there is none. `known`: there is a device cookie of ours;
        `confirm` says whose."""
        if self._in_use >= self._places or (not known and self._strangers >= self._strangers_places):
            return None
        self._in_use += 1
        self._strangers += not known
        return Place(self, known=known)

    def confirm(self, place: "Place", user: UUID | None) -> bool:
        """The user whom the device cookie and the log-in agree on; None: they don't, so the place is a stranger's.
        False: no such room."""
        if not place.known:
            return True
        if user is not None and user not in self._users:
            self._users.add(user)
            place.user = user
            return True
        if self._strangers >= self._strangers_places:
            return False
        place.known = False
        self._strangers += 1
        return True

    def release(self, place: "Place") -> None:
        """Gives the place back."""
        self._in_use -= 1
        self._strangers -= not place.known
        if place.user is not None:
            self._users.discard(place.user)

    async def run(self, place: "Place", function: Callable[..., T], *arguments: object) -> T:
        """The function's result, from a thread, when it is this place's turn. Cancelling leaves the line; a hash that
        runs is finished."""
        if self._idle:
            self._idle -= 1
        else:
            await self._wait(self._known_line if place.known else self._strangers_line)
        try:
            return await self._threads.run(function, *arguments)
        finally:
            self._next()

    async def _wait(self, line: deque[trio.Event]) -> None:
        turn = trio.Event()
        line.append(turn)
        try:
            await turn.wait()
        except trio.Cancelled:
            if turn.is_set():
                self._next()  # it was this one's turn; it is the next one's now
            else:
                line.remove(turn)
            raise

    def _next(self) -> None:
        """A hash has ended: the first in line begins, known browsers before strangers."""
        line = self._known_line or self._strangers_line
        if line:
            line.popleft().set()
        else:
            self._idle += 1


class Place:
    """A place in the queue. Made by `reserve`; given back when its `with` block ends."""

    __slots__ = ("_queue", "known", "user")

    def __init__(self, queue: HashingQueue, *, known: bool) -> None:
        self._queue = queue
        self.known = known
        self.user: UUID | None = None

    def confirm(self, user: UUID | None) -> bool:
        """See HashingQueue.confirm."""
        return self._queue.confirm(self, user)

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """See HashingQueue.run. May be called more than once: a hash that is made anew has its password counted as long
        as both take."""
        return await self._queue.run(self, function, *arguments)

    def __enter__(self) -> "Place":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.release(self)
