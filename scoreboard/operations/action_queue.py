"""The queue of actions between requests and committers: bounded, first in, first out, each action with a deadline.

`submit_action` puts a claim in and waits for its outcome; `workers.committer` takes batches out and resolves them.
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

MAX_BATCH_ACTIONS = 256  # actions; PostgreSQL's gain flattens at 64, the board call stays under 10 ms
MAX_QUEUED_ACTIONS = 4_096  # waiting actions, under a second of work; full: 503
OUTCOME_TIMEOUT_SECONDS = 3.0  # seconds an action waits for its outcome
LOCKED_RETRY_SECONDS = 0.2  # seconds between two tries of actions whose users' rows another session holds

QUEUE_FULL = out_of_service("Too many actions are waiting. Try again.")
DATABASE_UNAVAILABLE = out_of_service("The database is out of reach. Nothing was recorded.")
OUTCOME_IN_DOUBT = out_of_service(
    "The database did not answer in time. Send the same actionId again to learn whether it was recorded."
)


class Pending:
    """One queued claim, who waits for it, and until when (Trio's clock)."""

    __slots__ = ("_on_done", "claim", "deadline", "outcome")

    def __init__(self, claim: SubmittedAction, deadline: float) -> None:
        self.claim, self.deadline = claim, deadline
        self.outcome: Outcome | None = None
        self._on_done: Callable[[Outcome], None] | None = None

    def resolve(self, outcome: Outcome) -> None:
        """The first outcome counts: a late one has been answered already."""
        if self.outcome is None:
            self.outcome = outcome
            if self._on_done is not None:
                on_done, self._on_done = self._on_done, None  # no reference cycle stays behind
                on_done(outcome)

    def add_done_callback(self, on_done: Callable[[Outcome], None]) -> None:
        """Has `on_done` called with the outcome, once, without a task that waits. It must not raise: the committer
        calls it.

        Not for an action that is resolved already.
        """
        assert self.outcome is None
        self._on_done = on_done

    async def wait(self) -> Outcome:
        """The outcome, once there is one. Cancelling leaves the claim queued."""
        if self.outcome is None:
            resolved = trio.Event()
            self.add_done_callback(lambda _: resolved.set())
            await resolved.wait()
        else:
            await trio.lowlevel.checkpoint()
        assert self.outcome is not None  # set before any callback runs
        return self.outcome


class Batch(NamedTuple):
    """What goes to the stores together. `cautious`: other sessions held the rows of these users the last time; nobody
    waits for them."""

    pending: list[Pending]
    cautious: bool = False


class Queue:
    """Bounded, first in, first out. `available`: whether a committer has a connection; without one actions are refused
    at once.

    Users whose rows another session of the database holds are set apart, so that nobody else waits: their actions are
    tried together, now and then, without waiting for a lock, until they are recorded or their time is up.
    """

    __slots__ = ("_apart", "_apart_at", "_idle", "_locked", "_outstanding", "_waiting", "available")

    def __init__(self) -> None:
        self._waiting: deque[Pending] = deque()
        self._apart: deque[Pending] = (
            deque()
        )  # of locked users; at most MAX_QUEUED_ACTIONS together with those that wait
        self._locked: set[UUID] = set()
        self._apart_at = inf  # when those set apart are tried again, Trio's clock
        # by deadline, not resolved at the last check; at most what comes in within OUTCOME_TIMEOUT_SECONDS
        self._outstanding: deque[Pending] = deque()
        self._idle = trio.lowlevel.ParkingLot()
        self.available = 0

    def submit(self, claim: SubmittedAction) -> Pending | Refusal:
        """Queues the claim, whose outcome is there within OUTCOME_TIMEOUT_SECONDS, whoever still waits for it."""
        if not self.available:
            return DATABASE_UNAVAILABLE
        if len(self._waiting) + len(self._apart) >= MAX_QUEUED_ACTIONS:
            return QUEUE_FULL
        pending = Pending(claim, trio.current_time() + OUTCOME_TIMEOUT_SECONDS)
        self._waiting.append(pending)
        self._outstanding.append(pending)
        if self._idle:
            self._idle.unpark()
        return pending

    async def next_batch(self) -> Batch:
        """The next batch, as soon as there is one. Actions that were answered already are dropped, so that nothing is
        recorded of them."""
        while True:
            while not self._waiting and trio.current_time() < self._apart_at:
                await self._idle.park()
            cautious = trio.current_time() >= self._apart_at
            if cautious:
                self._apart_at = inf
            source = self._apart if cautious else self._waiting
            batch: list[Pending] = []
            while source and len(batch) < MAX_BATCH_ACTIONS:
                pending = source.popleft()
                if pending.outcome is not None:
                    continue
                if not cautious and pending.claim.user in self._locked:
                    self._set_apart(pending)
                else:
                    batch.append(pending)
            if self._apart:
                # more than a batch was set apart
                self._apart_at = min(self._apart_at, trio.current_time() + LOCKED_RETRY_SECONDS)
            if cautious:
                self._locked = {pending.claim.user for pending in (*batch, *self._apart)}
            if batch:
                metrics.COMMIT_QUEUE.set(len(self._waiting))
                return Batch(batch, cautious)

    def postpone(self, pending: Pending) -> None:
        """Another session holds the user's rows; nothing was recorded. It is tried again until its time is up."""
        if pending.outcome is None:
            self._locked.add(pending.claim.user)
            self._set_apart(pending)

    def unlocked(self, user: UUID) -> None:
        """The user's rows are free again."""
        self._locked.discard(user)

    def _set_apart(self, pending: Pending) -> None:
        self._apart.append(pending)
        self._apart_at = min(self._apart_at, trio.current_time() + LOCKED_RETRY_SECONDS)

    def expire(self, now: float) -> None:
        """Resolves the actions whose time is up. Wakes a committer when those that were set apart are due."""
        if now >= self._apart_at and self._idle:
            self._idle.unpark()
        while self._outstanding and (self._outstanding[0].outcome is not None or self._outstanding[0].deadline <= now):
            self._outstanding.popleft().resolve(OUTCOME_IN_DOUBT)

    def refuse_waiting(self) -> None:
        """Refuses all that wait: no committer has a connection."""
        for waiting in (self._waiting, self._apart):
            while waiting:
                waiting.popleft().resolve(DATABASE_UNAVAILABLE)
