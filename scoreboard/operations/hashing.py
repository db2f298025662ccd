"""The queue for password hashing. A hash takes 100 to 250 ms of a core and 64 MiB, so few run at once and few wait.

1. `reserve` decides and reserves a place in one synchronous step. So at most MAX_HASHING + MAX_WAITING places are used,
   however many requests come at once.
2. Known browsers (those with a device cookie) have RESERVED_FOR_KNOWN places that no other browser gets, and go first.
3. A place is released when its `with` block ends, also by a cancellation.
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
# Hashes at once. More than the cores can run finish no earlier, and slow down the event loop by the memory that they
# use.
MAX_HASHING = 2 if (os.cpu_count() or 1) >= 2 * ARGON2_LANES else 1
# places in line, two to six seconds of work for two cores; full: refused. A class of thirty can log in at once
MAX_WAITING = 48
RESERVED_FOR_KNOWN = 12  # of these, for browsers that have logged in before: a flood of other browsers can't use them

T = TypeVar("T")


class HashingQueue:
    """The places of one node. `hashing`, `waiting`, `reserved`: see MAX_HASHING, MAX_WAITING, RESERVED_FOR_KNOWN."""

    def __init__(
        self, hashing: int = MAX_HASHING, waiting: int = MAX_WAITING, reserved: int = RESERVED_FOR_KNOWN
    ) -> None:
        self._places, self._strangers_places = hashing + waiting, hashing + waiting - reserved
        self._in_use = self._strangers = 0  # places in use; those of them that unknown browsers use
        # users with a known browser's place: one place each, so that a stolen device cookie can't use them all
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
        """A place, to be used in a `with` block; None when there is none. `known`: the request has a device cookie of
        this installation; `confirm` then names its user."""
        if self._in_use >= self._places or (not known and self._strangers >= self._strangers_places):
            return None
        self._in_use += 1
        self._strangers += not known
        return Place(self, known=known)

    def confirm(self, place: "Place", user: UUID | None) -> bool:
        """Sets the user whom both the device cookie and the log-in name; None: they name different users, so the place
        becomes an unknown browser's. False: there is no such place left."""
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
        """Releases the place."""
        self._in_use -= 1
        self._strangers -= not place.known
        if place.user is not None:
            self._users.discard(place.user)

    async def run(self, place: "Place", function: Callable[..., T], *arguments: object) -> T:
        """Waits for the place's turn, then runs the function in a thread and returns its result. Cancelling leaves the
        line; a running hash is finished in its thread."""
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
                self._next()  # it was this place's turn, which goes to the next one
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
    """A place in the queue. Made by `reserve`; released when its `with` block ends."""

    __slots__ = ("_queue", "known", "user")

    def __init__(self, queue: HashingQueue, *, known: bool) -> None:
        self._queue = queue
        self.known = known
        self.user: UUID | None = None

    def confirm(self, user: UUID | None) -> bool:
        """See HashingQueue.confirm."""
        return self._queue.confirm(self, user)

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """See HashingQueue.run. May be called more than once, to compare a password and then to hash it again: the
        place is in use during both."""
        return await self._queue.run(self, function, *arguments)

    def __enter__(self) -> "Place":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.release(self)
