"""A batch of actions becomes outcomes: limits, then the ledger, then the boards, in one crossing to asyncio.

A `Writer` is one committer's identity in the stores: its PostgreSQL connection, its id, and the sequence numbers of
its batches.
PostgreSQL is authoritative. While Redis can't be reached, actions are recorded without ranks, and the boards are marked
as stale before an outcome is returned (see agreement). Called by `workers.committer`. All coroutines run in asyncio.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from uuid import UUID

import asyncpg
import msgspec

from scoreboard.domain.boards import Board, BoardVersion
from scoreboard.domain.errors import Code, Refusal, StorageUnavailable
from scoreboard.domain.ledger_rows import LedgerRow
from scoreboard.domain.outcomes import (
    OUTCOME_UNKNOWN,
    UNSTORABLE_ACTION,
    USER_DELETED,
    Duplicate,
    Held,
    Outcome,
    Recorded,
    SubmittedAction,
)
from scoreboard.runtime.breaker import Breaker, guard
from scoreboard.storage.agreement import StaleReason
from scoreboard.storage.board_writer import BoardWriter
from scoreboard.storage.postgres import ledger, outbox
from scoreboard.storage.redis.limits import COOLDOWN, SLOT, WINDOW_MS, LimitDecision, UserLimits
from scoreboard.storage.writer import RecordedBatch, Writer


class Committed(msgspec.Struct, frozen=True):
    """The result of a batch: outcomes in the order of its actions, and the versions of the boards after it, as far as
    they are known."""

    outcomes: list[Outcome]
    versions: dict[Board, BoardVersion]


class Commit:
    """One committer's access to the stores. Not shared: each committer has its own.

    The first of `boards` is the leaderboard: the ranks of outcomes are those on it.
    """

    __slots__ = ("boards", "breaker", "detached", "limits", "writer")

    def __init__(self, writer: Writer, limits: UserLimits, boards: Sequence[BoardWriter], breaker: Breaker) -> None:
        self.writer, self.limits, self.boards, self.breaker = writer, limits, boards, breaker
        self.detached = boards[0].agreement.detached  # one for all boards of a node

    async def run_aio(
        self, actions: Sequence[SubmittedAction], *, skip_locked: bool = False, has_unlimited: bool = False
    ) -> Committed:
        """Decides on, records and projects the actions; (user, action id) is unique among them.

        `skip_locked`: rows that another session holds are not waited for (see Writer); the outcome is LOCKED then.
        `has_unlimited`: to some of the actions the limits of users do not apply.

        Raises StorageUnavailable when PostgreSQL can't be used. Then the actions may be recorded or not, and so may
        they after a cancellation. In both cases a retry of the same action ids returns what was recorded.
        """
        decide_aio = self._decide_limited_aio if has_unlimited else self._decide_aio
        decisions, limits_are_complete = await decide_aio(actions)
        outcomes: list[Outcome | None] = [decision.refusal for decision in decisions]
        admitted = [place for place, outcome in enumerate(outcomes) if outcome is None]
        versions: dict[Board, BoardVersion] = {}
        if admitted:
            # a writer is detached from Redis, not from one board, so every agreement has this reason
            by_log = not limits_are_complete or StaleReason.DETACHED in self.boards[0].agreement.stale_reasons()
            for batch in await self.writer.record_aio(
                [actions[place] for place in admitted], by_log=by_log, skip_locked=skip_locked
            ):
                ranks = await self._project_aio(batch, versions)
                for at, outcome in zip(batch.places, batch.recording.outcomes, strict=True):
                    place = admitted[at]
                    if isinstance(outcome, Recorded):
                        outcome = msgspec.structs.replace(  # noqa: PLW2901
                            outcome, rank=ranks.get(outcome.user.bytes), left=decisions[place].left
                        )
                    outcomes[place] = outcome
        ages = await self._find_duplicates_aio(actions, outcomes)
        await self._release_reservations_aio(actions, decisions, outcomes, ages)
        return Committed([outcome or USER_DELETED for outcome in outcomes], versions)

    async def _decide_aio(self, actions: Sequence[SubmittedAction]) -> tuple[list[LimitDecision], bool]:
        """Redis' decisions, and whether they are complete. If not, the action log must decide too when the actions are
        recorded; while Redis is away, it decides alone."""
        try:
            with guard(self.breaker):
                return await self.limits.reserve_aio(actions)
        except StorageUnavailable:
            self.limits.invalidate()
            await self._detach_aio()
        return [LimitDecision(None)] * len(actions), False

    async def _decide_limited_aio(self, actions: Sequence[SubmittedAction]) -> tuple[list[LimitDecision], bool]:
        """The same where the limits apply to some of the actions, or to none. The time and the rule of the others were
        checked before they were queued."""
        limited = [action for action in actions if action.is_limited]
        decided, is_complete = await self._decide_aio(limited) if limited else ([], True)
        decisions = iter(decided)
        return [next(decisions) if action.is_limited else _unlimited(action) for action in actions], is_complete

    async def _project_aio(self, batch: RecordedBatch, versions: dict[Board, BoardVersion]) -> dict[bytes, int | None]:
        """Sends one recorded batch to every board, and adds their versions to `versions`. Returns the ranks on the
        first board by raw user id; none when they are not certain."""
        first: dict[bytes, int | None] | None = None
        if not batch.recording.rows:
            return {}
        for board in self.boards:
            call = board.prepare(batch)
            try:
                with guard(self.breaker):
                    applied = await board.send_aio(call)
            except StorageUnavailable:
                applied = None
                board.note_failure(call)
                self.limits.invalidate()
                # PostgreSQL failed just after it had recorded: the next batch tries again
                with suppress(StorageUnavailable):
                    await self._detach_aio()
            if applied is not None:
                versions[board.board] = applied.version
            ranks = board.note_result(call, applied)
            first = ranks if first is None else first
        return first or {}

    async def _detach_aio(self) -> None:
        """Lists this writer in PostgreSQL as unable to reach Redis, so that all other writers ask the action log for
        the rate limits.

        Raises StorageUnavailable. The projector removes the writer from the list again (storage.repair).
        """
        number, detached = self.writer.writer_id, self.detached
        if number not in detached.writers:
            await self.writer.call_aio(lambda conn: outbox.detach_aio(conn, [number]))
        detached.add(number)

    # ---- duplicates -------------------------------------------------------------------------------------------------

    async def _find_duplicates_aio(
        self, actions: Sequence[SubmittedAction], outcomes: list[Outcome | None]
    ) -> dict[int, int]:
        """Replaces outcomes by Duplicate where the action was recorded before, by Held where it waits or waited for a
        decision. 409 has precedence over 429 and 400, so refused actions are looked up too.

        Returns the age of each recorded action (ms) by place.
        """
        unsure = [
            place
            for place, (action, outcome) in enumerate(zip(actions, outcomes, strict=True))
            if outcome is None or (_may_be_duplicate(outcome) and not _is_approval(action))
        ]
        if not unsure:
            return {}
        try:
            found = await self.writer.call_aio(
                lambda conn: ledger.find_recorded_aio(
                    conn, [actions[place] for place in unsure], self.writer.next_sequences()
                )
            )
        except StorageUnavailable:
            if len(unsure) == len(actions):
                raise
            for place in unsure:  # the others are recorded and keep their outcomes
                outcomes[place] = OUTCOME_UNKNOWN
            return {}
        duplicates = {unsure[at]: recorded for at, recorded in found.items()}
        ranks = await self._send_current_rows_aio({actions[place].user for place in duplicates}) if duplicates else {}
        for place, recorded in duplicates.items():
            outcomes[place] = recorded.duplicate
            if isinstance(recorded.duplicate, Duplicate) and (original := recorded.duplicate.original):
                outcomes[place] = Duplicate(_ranked(original, ranks.get(original.user.bytes)))
        return {place: recorded.age_ms for place, recorded in duplicates.items()}

    async def _send_current_rows_aio(self, users: Collection[UUID]) -> dict[bytes, int | None]:
        """Sends the users' current rows to the boards before an earlier outcome is returned again: the node that
        recorded it may have ended before its own call.

        Returns their ranks on the first board by raw user id; none when they are not certain.
        """
        first: dict[bytes, int | None] | None = None
        for board in self.boards:
            ranks: dict[bytes, int | None] | None = None
            try:
                current = await self.writer.call_aio(partial(_current_rows_aio, board.board, users))
                with guard(self.breaker):
                    ranks = await board.send_current_rows_aio(self.writer.writer_id, current)
            except StorageUnavailable:
                pass
            if ranks is None:
                board.agreement.mark_stale(StaleReason.BEHIND)
                ranks = {}
            first = ranks if first is None else first
        return first or {}

    async def _release_reservations_aio(
        self,
        actions: Sequence[SubmittedAction],
        decisions: Sequence[LimitDecision],
        outcomes: Sequence[Outcome | None],
        ages: Mapping[int, int],
    ) -> None:
        """Releases slots and cooldowns that this batch reserved for actions that were not recorded."""
        releases = []
        for place, (action, decision, outcome) in enumerate(zip(actions, decisions, outcomes, strict=True)):
            if decision.reserved and (what := decision.reserved & _releasable(action, outcome, ages.get(place, 0))):
                releases.append((action, what))
        if releases:
            try:
                await self.limits.release_aio(releases)
            except StorageUnavailable:
                self.breaker.failed(monotonic())  # the reservations expire by themselves


async def _current_rows_aio(board: Board, users: Iterable[UUID], conn: asyncpg.Connection) -> list[LedgerRow]:
    """The users' rows for a board. A deleted user has none; the outbox has the deletion."""
    return [row for row in await ledger.current_rows_aio(conn, board, dict.fromkeys(users, 0)) if row.total is not None]


def _unlimited(action: SubmittedAction) -> LimitDecision:
    return LimitDecision(action.points_or_refusal if isinstance(action.points_or_refusal, Refusal) else None)


def _ranked(recorded: Recorded, rank: int | None) -> Recorded:
    return msgspec.structs.replace(recorded, rank=rank)


def _may_be_duplicate(outcome: Outcome) -> bool:
    """Whether a limit, a rule or a ban refused the action, so that the ledger was not asked for its key."""
    return (
        isinstance(outcome, Refusal)
        and outcome.code in {Code.RATE_LIMITED, Code.INVALID_ACTION, Code.FORBIDDEN}
        and outcome is not UNSTORABLE_ACTION
    )


def _is_approval(action: SubmittedAction) -> bool:
    """Whether a moderator lets the action count that waits under its key. A refusal of that is the outcome."""
    return action.conditions is not None and action.conditions.approval is not None


def _releasable(action: SubmittedAction, outcome: Outcome | None, age_ms: int) -> int:
    """The bits of an action's reservation that must be released, given its outcome. `age_ms` is the age of the recorded
    action that a duplicate repeats."""
    match outcome:
        case Recorded() | Refusal(code=Code.SERVICE_UNAVAILABLE):  # a retry finds its slot again
            return 0
        # a recent action owns the reservation: the other committer may have recorded it with this one
        case Duplicate() | Held():
            return (SLOT if age_ms >= WINDOW_MS else 0) | (COOLDOWN if age_ms >= action.cooldown_ms else 0)
        case Refusal(code=Code.RATE_LIMITED):  # by the action log, which is more complete than Redis
            return SLOT | COOLDOWN
        # refused by its rule, or unstorable: it uses up its slot, like every refused action
        case Refusal() if outcome is not USER_DELETED:
            return COOLDOWN
        case _:
            return SLOT | COOLDOWN
