"""The queue of actions between requests and committers: bounded, first in, first out, each action with a deadline.

`submit_action` queues an action. `workers.committer` gets batches, commits them, and resolves the actions. Never
decides about an action: see `storage.commit`.

Tested in tests/workers/test_committer.py.
"""

from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import NamedTuple
from uuid import UUID

import trio

from scoreboard.domain.errors import Refusal
from scoreboard.domain.outcomes import Outcome, SubmittedAction, out_of_service
from scoreboard.telemetry import metrics

MAX_BATCH_ACTIONS = 256  # more than 64 hardly help PostgreSQL; the call to the board stays under 10 ms
MAX_QUEUED_ACTIONS = 4_096  # under a second of work; full: 503
# Of server keys. A request of 500 is one batch; small requests share one. More than 500 hardly help PostgreSQL.
MAX_BULK_BATCH_ACTIONS = 512
MAX_QUEUED_BULK_ACTIONS = 4_096  # eight such requests, 0.2 s of work; full: 503. Counted apart, so users get their turn
ACTION_TIMEOUT_SECONDS = 3.0  # how long an action waits for its outcome
LOCKED_RETRY_INTERVAL_SECONDS = 0.2  # between two tries of actions whose users' rows another session holds

QUEUE_FULL = out_of_service("Too many actions are waiting. Try again.")
DATABASE_UNAVAILABLE = out_of_service("The database is out of reach. Nothing was recorded.")
COMMIT_TIMED_OUT = out_of_service(
    "The database did not answer in time. Send the same actionId again to learn whether it was recorded."
)


class Pending:
    """One queued action, the callback that waits for its outcome, and the deadline (Trio's clock)."""

    __slots__ = ("_on_done", "action", "deadline", "outcome")

    def __init__(self, action: SubmittedAction, deadline: float) -> None:
        self.action, self.deadline = action, deadline
        self.outcome: Outcome | None = None
        self._on_done: Callable[[Outcome], None] | None = None

    def resolve(self, outcome: Outcome) -> None:
        """Sets the outcome and calls the callback. A second outcome is ignored: the client has been answered."""
        if self.outcome is None:
            self.outcome = outcome
            if self._on_done is not None:
                on_done, self._on_done = self._on_done, None  # no reference cycle is left
                on_done(outcome)

    def add_done_callback(self, on_done: Callable[[Outcome], None]) -> None:
        """`resolve` will call `on_done` once, so that no task has to wait. It must not raise, since the committer calls
        it.

        The action must not be resolved yet.
        """
        assert self.outcome is None
        self._on_done = on_done

    async def wait(self) -> Outcome:
        """Waits for the outcome and returns it. Cancelling leaves the action queued."""
        if self.outcome is None:
            resolved = trio.Event()
            self.add_done_callback(lambda _: resolved.set())
            await resolved.wait()
        else:
            await trio.lowlevel.checkpoint()
        assert self.outcome is not None  # set before any callback
        return self.outcome


class PendingGroup:
    """Queued actions of one request, and the task that waits for all of their outcomes."""

    __slots__ = ("_resolved", "_unresolved", "pending")

    def __init__(self, pending: list[Pending]) -> None:
        self.pending = pending
        self._unresolved = len(pending)
        self._resolved = trio.Event()
        for one in pending:
            one.add_done_callback(self._count)

    async def wait(self) -> list[Outcome]:
        """Waits for all outcomes and returns them in the order of the actions. Cancelling leaves the actions
        queued."""
        if self._unresolved:
            await self._resolved.wait()
        return [one.outcome for one in self.pending if one.outcome is not None]  # each has one by now

    def _count(self, _outcome: Outcome) -> None:
        self._unresolved -= 1
        if not self._unresolved:
            self._resolved.set()


class Batch(NamedTuple):
    """Actions that are committed together. `skip_locked`: at the last try other sessions held the rows of these users,
    so the batch must not wait for locks. `has_unlimited`: actions of server keys are among them."""

    pending: list[Pending]
    skip_locked: bool = False
    has_unlimited: bool = False


class Queue:
    """Bounded, first in, first out. `available`: how many committers have a connection; at 0 actions are refused at
    once.

    Actions of users whose rows another database session holds are kept in a second queue, so that they delay no other
    action. They are tried together every LOCKED_RETRY_INTERVAL_SECONDS, without waiting for locks, until they are
    recorded or expire.

    The actions of one request of a server key are a group, which is never divided between batches (but for those of
    locked users). Batches of groups and batches of other actions take turns.
    """

    __slots__ = (
        "_groups",
        "_idle",
        "_in_groups",
        "_is_groups_turn",
        "_locked_users",
        "_of_locked_users",
        "_outstanding",
        "_retry_locked_at",
        "_waiting",
        "available",
    )

    def __init__(self) -> None:
        self._waiting: deque[Pending] = deque()
        self._groups: deque[list[Pending]] = deque()
        self._in_groups = 0  # actions in `_groups`, at most MAX_QUEUED_BULK_ACTIONS
        self._is_groups_turn = False
        # at most MAX_QUEUED_ACTIONS together with `_waiting`, and those of groups
        self._of_locked_users: deque[Pending] = deque()
        self._locked_users: set[UUID] = set()
        self._retry_locked_at = inf  # when actions of locked users are tried again, Trio's clock
        # in the order of their deadlines; resolved ones are removed later. At most the actions of
        # ACTION_TIMEOUT_SECONDS
        self._outstanding: deque[Pending] = deque()
        self._idle = trio.lowlevel.ParkingLot()
        self.available = 0

    def submit(self, action: SubmittedAction) -> Pending | Refusal:
        """Queues the action, or refuses it at once. A queued action is resolved within ACTION_TIMEOUT_SECONDS."""
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

    def submit_group(self, actions: Sequence[SubmittedAction]) -> PendingGroup | Refusal:
        """Queues the actions of one request, at most MAX_BULK_BATCH_ACTIONS, to be committed together; or refuses all
        of them at once."""
        if not self.available:
            return DATABASE_UNAVAILABLE
        if self._in_groups + len(actions) > MAX_QUEUED_BULK_ACTIONS:
            return QUEUE_FULL
        deadline = trio.current_time() + ACTION_TIMEOUT_SECONDS
        group = [Pending(action, deadline) for action in actions]
        if group:
            self._groups.append(group)
            self._in_groups += len(group)
            self._outstanding.extend(group)
            if self._idle:
                self._idle.unpark()
        return PendingGroup(group)

    async def next_batch(self) -> Batch:
        """Waits for the next batch and returns it. Actions that are resolved already (expired or refused) are dropped.
        Cancelling while it waits loses nothing."""
        while True:
            while not self._waiting and not self._groups and trio.current_time() < self._retry_locked_at:
                await self._idle.park()
            skip_locked = trio.current_time() >= self._retry_locked_at
            if skip_locked:
                self._retry_locked_at = inf
            elif self._groups and (self._is_groups_turn or not self._waiting):
                if batch := self._take_groups():
                    return Batch(batch, has_unlimited=True)
                continue
            batch = self._take_single(skip_locked=skip_locked)
            if batch:
                metrics.COMMIT_QUEUE.set(len(self._waiting))
                return Batch(batch, skip_locked, skip_locked and any(not one.action.is_limited for one in batch))

    def _take_single(self, *, skip_locked: bool) -> list[Pending]:
        """The next batch of actions that came alone: those of locked users with `skip_locked`, else all others."""
        self._is_groups_turn = True
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
            # there are more than one batch
            self._retry_locked_at = min(self._retry_locked_at, trio.current_time() + LOCKED_RETRY_INTERVAL_SECONDS)
        if skip_locked:
            self._locked_users = {pending.action.user for pending in (*batch, *self._of_locked_users)}
        return batch

    def _take_groups(self) -> list[Pending]:
        """The next batch of groups: the first, and those after it that fit. Without actions that are resolved already,
        or whose users are locked."""
        self._is_groups_turn = False
        batch: list[Pending] = []
        taken = 0
        while self._groups and (not taken or taken + len(self._groups[0]) <= MAX_BULK_BATCH_ACTIONS):
            group = self._groups.popleft()
            taken += len(group)
            for pending in group:
                if pending.outcome is None and pending.action.user not in self._locked_users:
                    batch.append(pending)
                elif pending.outcome is None:
                    self._set_apart(pending)
        self._in_groups -= taken
        return batch

    def postpone(self, pending: Pending) -> None:
        """Another session holds the user's rows, and nothing was recorded. The action is tried again until it
        expires."""
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
        """Resolves actions whose deadline has passed with COMMIT_TIMED_OUT. Wakes a committer when actions of locked
        users are to be tried again."""
        if now >= self._retry_locked_at and self._idle:
            self._idle.unpark()
        while self._outstanding and (self._outstanding[0].outcome is not None or self._outstanding[0].deadline <= now):
            self._outstanding.popleft().resolve(COMMIT_TIMED_OUT)

    def refuse_waiting(self) -> None:
        """No committer has a connection: all waiting actions are refused at once."""
        for waiting in (self._waiting, self._of_locked_users):
            while waiting:
                waiting.popleft().resolve(DATABASE_UNAVAILABLE)
        while self._groups:
            for pending in self._groups.popleft():
                pending.resolve(DATABASE_UNAVAILABLE)
        self._in_groups = 0
