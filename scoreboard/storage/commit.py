"""A batch of actions becomes outcomes: limits, then the ledger, then the boards, in one crossing.

A `Writer` is one committer's identity in the stores: its PostgreSQL connection, its id, and its sequence of turns.
PostgreSQL decides. While Redis can't be reached actions get no ranks, but they are recorded; the boards are marked as
stale before anybody is answered (see agreement). Called by `workers.committer`, which waits for it; asyncio-flavoured
throughout.
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
    Outcome,
    Recorded,
    SubmittedAction,
)
from scoreboard.runtime.breaker import Breaker, guard
from scoreboard.storage.agreement import StaleReason
from scoreboard.storage.board_writer import BoardWriter
from scoreboard.storage.postgres import ledger, outbox
from scoreboard.storage.redis.limits import COOLDOWN, SLOT, WINDOW_MS, LimitDecision, Limits
from scoreboard.storage.writer import RecordedTurn, Writer


class Committed(msgspec.Struct, frozen=True):
    """What became of a batch: outcomes in the order of its actions, and the versions of the boards after it, as far as
    they are known."""

    outcomes: list[Outcome]
    versions: dict[Board, BoardVersion]


class Commit:
    """One committer's way through the stores. Not shared: each committer has its own.

    The first of `boards` is the leaderboard: outcomes tell the ranks there.
    """

    __slots__ = ("boards", "breaker", "detached", "limits", "writer")

    def __init__(self, writer: Writer, limits: Limits, boards: Sequence[BoardWriter], breaker: Breaker) -> None:
        self.writer, self.limits, self.boards, self.breaker = writer, limits, boards, breaker
        self.detached = boards[0].agreement.detached  # one for all boards of a node

    async def run_aio(self, actions: Sequence[SubmittedAction], *, skip_locked: bool = False) -> Committed:
        """Decides on, records and projects the actions; (user, action id) is unique among them.

        `skip_locked`: rows that another session holds are not waited for (see Writer); the outcome is LOCKED then.
        Raises StorageUnavailable when PostgreSQL is: nothing was recorded, or a retry of the same action ids tells.
        Cancelling may leave the outcome unknown, which a retry tells too.
        """
        decisions, is_judged = await self._decide_aio(actions)
        outcomes: list[Outcome | None] = [decision.refusal for decision in decisions]
        going = [place for place, outcome in enumerate(outcomes) if outcome is None]
        versions: dict[Board, BoardVersion] = {}
        if going:
            # other nodes' writers are detached from Redis, not from one board: each agreement knows of them
            by_log = not is_judged or StaleReason.DETACHED in self.boards[0].agreement.stale_reasons()
            for turn in await self.writer.record_aio(
                [actions[place] for place in going], by_log=by_log, skip_locked=skip_locked
            ):
                ranks = await self._project_aio(turn, versions)
                for at, outcome in zip(turn.places, turn.recording.outcomes, strict=True):
                    outcomes[going[at]] = (
                        _ranked(outcome, ranks.get(outcome.user.bytes)) if isinstance(outcome, Recorded) else outcome
                    )
        ages = await self._find_duplicates_aio(actions, outcomes)
        await self._release_reservations_aio(actions, decisions, outcomes, ages)
        return Committed([outcome or USER_DELETED for outcome in outcomes], versions)

    async def _decide_aio(self, actions: Sequence[SubmittedAction]) -> tuple[list[LimitDecision], bool]:
        """By Redis, and whether that is enough. While Redis is away, the action log decides alone, when the actions are
        recorded."""
        try:
            with guard(self.breaker):
                return await self.limits.reserve_aio(actions)
        except StorageUnavailable:
            self.limits.invalidate()
            await self._detach_aio()
        return [LimitDecision(None)] * len(actions), False

    async def _project_aio(self, turn: RecordedTurn, versions: dict[Board, BoardVersion]) -> dict[bytes, int | None]:
        """Brings one recorded turn to every board, and notes their versions. Returns the ranks of the first board, by
        raw user id; none where they are not certain."""
        first: dict[bytes, int | None] | None = None
        if not turn.recording.rows:
            return {}
        for board in self.boards:
            call = board.prepare(turn)
            try:
                with guard(self.breaker):
                    applied = await board.send_aio(call)
            except StorageUnavailable:
                applied = None
                board.note_failure(call)
                self.limits.invalidate()
                # of PostgreSQL, just after it has recorded: the next turn tries again
                with suppress(StorageUnavailable):
                    await self._detach_aio()
            if applied is not None:
                versions[board.board] = applied.version
            ranks = board.register(call, applied)
            first = ranks if first is None else first
        return first or {}

    async def _detach_aio(self) -> None:
        """Tells all writers, by way of PostgreSQL, that this one can't reach Redis. Until then they don't know what
        they miss.

        Raises StorageUnavailable. The projector calls it off.
        """
        number, detached = self.writer.writer_id, self.detached
        if number not in detached.writers:
            await self.writer.ask_aio(lambda conn: outbox.detach_aio(conn, [number]))
        detached.add(number)

    # ---- what was there before --------------------------------------------------------------------------------------

    async def _find_duplicates_aio(
        self, actions: Sequence[SubmittedAction], outcomes: list[Outcome | None]
    ) -> dict[int, int]:
        """409 goes before 429 and 400: whoever was turned away or found no new key is looked up among what was recorded
        before.

        Returns by place how long ago that was (ms).
        """
        asked = [place for place, outcome in enumerate(outcomes) if outcome is None or _was_turned_away(outcome)]
        if not asked:
            return {}
        try:
            found = await self.writer.ask_aio(
                lambda conn: ledger.find_recorded_aio(conn, [actions[place] for place in asked], self.writer.span())
            )
        except StorageUnavailable:
            if len(asked) == len(actions):
                raise
            for place in asked:  # the others are recorded: their outcomes stand
                outcomes[place] = OUTCOME_UNKNOWN
            return {}
        again = {asked[at]: before for at, before in found.items()}
        ranks = await self._bring_aio({actions[place].user for place in again}) if again else {}
        for place, before in again.items():
            original = before.duplicate.original
            outcomes[place] = Duplicate(original and _ranked(original, ranks.get(original.user.bytes)))
        return {place: before.age_ms for place, before in again.items()}

    async def _bring_aio(self, users: Collection[UUID]) -> dict[bytes, int | None]:
        """Brings users' present rows to the boards, before an earlier outcome is repeated to them: the node that
        recorded it may have died.

        Returns their ranks on the first board by raw user id, as far as they are certain.
        """
        first: dict[bytes, int | None] | None = None
        for board in self.boards:
            ranks: dict[bytes, int | None] | None = None
            try:
                current = await self.writer.ask_aio(partial(_current_rows_aio, board.board, users))
                with guard(self.breaker):
                    ranks = await board.bring_aio(self.writer.writer_id, current)
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
        """Slots and cooldowns that this batch newly reserved for what then did not count."""
        given_back = []
        for place, (action, decision, outcome) in enumerate(zip(actions, decisions, outcomes, strict=True)):
            if decision.reserved and (what := decision.reserved & _to_return(action, outcome, ages.get(place, 0))):
                given_back.append((action, what))
        if given_back:
            try:
                await self.limits.release_aio(given_back)
            except StorageUnavailable:
                self.breaker.failed(monotonic())  # they expire by themselves


async def _current_rows_aio(board: Board, users: Iterable[UUID], conn: asyncpg.Connection) -> list[LedgerRow]:
    """The users' rows for a board. Who is deleted is noted in the outbox."""
    return [row for row in await ledger.current_rows_aio(conn, board, dict.fromkeys(users, 0)) if row.total is not None]


def _ranked(recorded: Recorded, rank: int | None) -> Recorded:
    return msgspec.structs.replace(recorded, rank=rank)


def _was_turned_away(outcome: Outcome) -> bool:
    """By a limit or a rule, in the stores."""
    return (
        isinstance(outcome, Refusal)
        and outcome.code in {Code.RATE_LIMITED, Code.INVALID_ACTION}
        and outcome is not UNSTORABLE_ACTION
    )


def _to_return(action: SubmittedAction, outcome: Outcome | None, age_ms: int) -> int:
    """What a action must not keep of its reservation, given its outcome; `age_ms` is that of the action that it
    repeats."""
    match outcome:
        case Recorded() | Refusal(code=Code.SERVICE_UNAVAILABLE):  # a retry finds its slot again
            return 0
        # of a young action it is that one's own: the other committer may have recorded it on this reservation
        case Duplicate():
            return (SLOT if age_ms >= WINDOW_MS else 0) | (COOLDOWN if age_ms >= action.cooldown_ms else 0)
        case Refusal(code=Code.RATE_LIMITED):  # by the action log, which knows more than Redis
            return SLOT | COOLDOWN
        # by its rule, or unstorable: the slot stays taken, like any refused action's
        case Refusal() if outcome is not USER_DELETED:
            return COOLDOWN
        case _:
            return SLOT | COOLDOWN
