"""The queue of actions between requests and committers: bounded, first in, first out, each action with a deadline.

`submit_action` puts an action in and waits for its outcome; `workers.committer` takes batches out and resolves them.
Never decides about an action: see `storage.commit`.

Tested in tests/workers/test_committer.py.
"""

from collections import deque
from collections.abc import Callable
from math import inf
from typing import NamedTuple
from uuid import UUID

import trio

from scoreboard.domain.errors import Refusal
from scoreboard.domain.outcomes import Outcome, SubmittedAction, out_of_service
from scoreboard.telemetry import metrics

MAX_BATCH_ACTIONS = 256  # PostgreSQL's gain flattens at 64, the board call stays under 10 ms
MAX_QUEUED_ACTIONS = 4_096  # under a second of work; full: 503
ACTION_TIMEOUT_SECONDS = 3.0  # how long an action waits for its outcome
LOCKED_RETRY_INTERVAL_SECONDS = 0.2  # between two tries of actions whose users' rows another session holds

QUEUE_FULL = out_of_service("Too many actions are waiting. Try again.")
DATABASE_UNAVAILABLE = out_of_service("The database is out of reach. Nothing was recorded.")
COMMIT_TIMED_OUT = out_of_service(
    "The database did not answer in time. Send the same actionId again to learn whether it was recorded."
)


class Pending:
    """One queued action, who waits for it, and until when (Trio's clock)."""

    __slots__ = ("_on_done", "action", "deadline", "outcome")

    def __init__(self, action: SubmittedAction, deadline: float) -> None:
        self.action, self.deadline = action, deadline
        self.outcome: Outcome | None = None
        self._on_done: Callable[[Outcome], None] | None = None

    def resolve(self, outcome: Outcome) -> None:
        """The first outcome counts: a late one has been answered already."""
        if self.outcome is None:
            self.outcome = outcome
            if self._on_done is not None:
                on_done, self._on_done = self._on_done, None  # no reference cycle is left
                on_done(outcome)

    def add_done_callback(self, on_done: Callable[[Outcome], None]) -> None:
        """Calls `on_done` once, from `resolve`: no task waits. It must not raise, since the committer calls it.

        Not for an action that is resolved already.
        """
        assert self.outcome is None
        self._on_done = on_done

    async def wait(self) -> Outcome:
        """The outcome, once there is one. Cancelling leaves the action queued."""
        if self.outcome is None:
            resolved = trio.Event()
            self.add_done_callback(lambda _: resolved.set())
            await resolved.wait()
        else:
            await trio.lowlevel.checkpoint()
        assert self.outcome is not None  # set before any callback
        return self.outcome


class Batch(NamedTuple):
    """What goes to the stores together. `skip_locked`: other sessions held the rows of these users the last time, and
    the batch does not wait for them."""

    pending: list[Pending]
    skip_locked: bool = False


class Queue:
    """Bounded, first in, first out. `available`: whether a committer has a connection; without one actions are refused
    at once.

    Users whose rows another session of the database holds are set apart, so that nobody else waits: their actions are
    tried together, now and then, without waiting for a lock, until they are recorded or their time is up.
    """

    __slots__ = (
        "_idle",
        "_locked_users",
        "_of_locked_users",
        "_outstanding",
        "_retry_locked_at",
        "_waiting",
        "available",
    )

    def __init__(self) -> None:
        self._waiting: deque[Pending] = deque()
        self._of_locked_users: deque[Pending] = (
            deque()
        )  # of locked users; at most MAX_QUEUED_ACTIONS together with those that wait
        self._locked_users: set[UUID] = set()
        self._retry_locked_at = inf  # when those set apart are tried again, Trio's clock
        # by deadline, not answered when last looked at; at most what comes in within ACTION_TIMEOUT_SECONDS
        self._outstanding: deque[Pending] = deque()
        self._idle = trio.lowlevel.ParkingLot()
        self.available = 0

    def submit(self, action: SubmittedAction) -> Pending | Refusal:
        """Queues the action, whose outcome is there within ACTION_TIMEOUT_SECONDS, whoever still waits for it."""
        if not self.available:
            return DATABASE_UNAVAILABLE
        if len(self._waiting) + len(self._of_locked_users) >= MAX_QUEUED_ACTIONS:
            return QUEUE_FULL
        pending = Pending(action, trio.current_time() + ACTION_TIMEOUT_SECONDS)
        self._waiting.append(pending)
        self._outstanding.append(pending)
        if self._idle:
            self._idle.unpark()
        return pending

    async def next_batch(self) -> Batch:
        """The next batch, as soon as there is one. Late ones are dropped unseen, so that "nothing was recorded" is true
        of them."""
        while True:
            while not self._waiting and trio.current_time() < self._retry_locked_at:
                await self._idle.park()
            skip_locked = trio.current_time() >= self._retry_locked_at
            if skip_locked:
                self._retry_locked_at = inf
            source = self._of_locked_users if skip_locked else self._waiting
            batch: list[Pending] = []
            while source and len(batch) < MAX_BATCH_ACTIONS:
                pending = source.popleft()
                if pending.outcome is not None:
                    continue
                if not skip_locked and pending.action.user in self._locked_users:
                    self._set_apart(pending)
                else:
                    batch.append(pending)
            if self._of_locked_users:
                # more than a batch was set apart
                self._retry_locked_at = min(self._retry_locked_at, trio.current_time() + LOCKED_RETRY_INTERVAL_SECONDS)
            if skip_locked:
                self._locked_users = {pending.action.user for pending in (*batch, *self._of_locked_users)}
            if batch:
                metrics.COMMIT_QUEUE.set(len(self._waiting))
                return Batch(batch, skip_locked)

    def postpone(self, pending: Pending) -> None:
        """Another session holds the user's rows; nothing was recorded. It is tried again until its time is up."""
        if pending.outcome is None:
            self._locked_users.add(pending.action.user)
            self._set_apart(pending)

    def mark_unlocked(self, user: UUID) -> None:
        """The user's rows are free again."""
        self._locked_users.discard(user)

    def _set_apart(self, pending: Pending) -> None:
        self._of_locked_users.append(pending)
        self._retry_locked_at = min(self._retry_locked_at, trio.current_time() + LOCKED_RETRY_INTERVAL_SECONDS)

    def expire(self, now: float) -> None:
        """Answers for whatever has waited too long. Has those who were set apart tried again when it is time."""
        if now >= self._retry_locked_at and self._idle:
            self._idle.unpark()
        while self._outstanding and (self._outstanding[0].outcome is not None or self._outstanding[0].deadline <= now):
            self._outstanding.popleft().resolve(COMMIT_TIMED_OUT)

    def refuse_waiting(self) -> None:
        """No committer has a connection: all waiting actions are refused at once."""
        for waiting in (self._waiting, self._of_locked_users):
            while waiting:
                waiting.popleft().resolve(DATABASE_UNAVAILABLE)
