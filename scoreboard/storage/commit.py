"""A batch of claims becomes outcomes: limits, then the ledger, then the board, in one crossing.

A `Writer` is one committer's identity in the stores: its PostgreSQL connection, its number, and its turns. PostgreSQL
decides; a Redis that is away costs ranks, never an action, and the board is then in doubt before anybody is answered
(see agreement). Called by `workers.committer`, which waits for it; asyncio-flavoured throughout.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from uuid import UUID

import msgspec

from scoreboard.domain.boards import BoardVersion
from scoreboard.domain.errors import Code, Refusal, StorageUnavailable
from scoreboard.domain.ledger_rows import LedgerRow, SequenceRange
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
from scoreboard.storage.agreement import Agreement, Doubt
from scoreboard.storage.postgres import ledger, outbox
from scoreboard.storage.redis.limits import COOLDOWN, SLOT, WINDOW_MS, LimitDecision, Limits
from scoreboard.storage.redis.projection import Projection
from scoreboard.storage.writer import RecordedTurn, Writer

# users whose rows wait for the board's return; more: left to the projector, which reads them from `commits`
GAP_ROWS = 4_096


class Committed(msgspec.Struct, frozen=True):
    """What became of a batch: outcomes in the order of its claims, and the board's mark after it (None: not known)."""

    outcomes: list[Outcome]
    mark: BoardVersion | None


class Commit:
    """One committer's way through the stores. Not shared: each committer has its own."""

    __slots__ = ("_gap_span", "_unprojected", "agreement", "breaker", "limits", "projection", "writer")

    def __init__(
        self, writer: Writer, limits: Limits, projection: Projection, breaker: Breaker, agreement: Agreement
    ) -> None:
        self.writer, self.limits, self.projection, self.breaker, self.agreement = (
            writer,
            limits,
            projection,
            breaker,
            agreement,
        )
        self._unprojected: dict[bytes, LedgerRow] = {}  # rows that the board has not taken yet, the newest of each user
        # the turns that they cover; of a writer's former number: left to the projector
        self._gap_span: SequenceRange | None = None

    async def run(self, claims: Sequence[SubmittedAction], *, cautious: bool = False) -> Committed:
        """Judges, records and projects the claims; (user, action id) is unique among them.

        `cautious`: rows that another session holds are not waited for (see Writer.record); the outcome is LOCKED then.
        Raises StorageUnavailable when PostgreSQL is: nothing was recorded, or a retry of the same action ids tells.
        Cancelling may leave the outcome unknown, which a retry tells too.
        """
        judgements, is_judged = await self._judge(claims)
        outcomes: list[Outcome | None] = [judgement.refusal for judgement in judgements]
        going = [place for place, outcome in enumerate(outcomes) if outcome is None]
        mark = None
        if going:
            by_log = not is_judged or Doubt.DETACHED in self.agreement.doubts()
            for taken in await self.writer.record([claims[place] for place in going], by_log=by_log, cautious=cautious):
                ranks, mark = await self._project(taken, mark)
                for at, outcome in zip(taken.places, taken.recording.outcomes, strict=True):
                    outcomes[going[at]] = (
                        _ranked(outcome, ranks.get(outcome.user.bytes)) if isinstance(outcome, Recorded) else outcome
                    )
        ages = await self._find_duplicates(claims, outcomes)
        await self._release_reservations(claims, judgements, outcomes, ages)
        return Committed([outcome or USER_DELETED for outcome in outcomes], mark)

    async def _judge(self, claims: Sequence[SubmittedAction]) -> tuple[list[LimitDecision], bool]:
        """By Redis, and whether that is enough. While Redis is away, the action log decides alone, when the claims are
        recorded."""
        try:
            with guard(self.breaker):
                return await self.limits.reserve(claims)
        except StorageUnavailable:
            self.limits.distrust()
            await self._detach()
        return [LimitDecision(None)] * len(claims), False

    async def _project(
        self, taken: RecordedTurn, mark: BoardVersion | None
    ) -> tuple[dict[bytes, int | None], BoardVersion | None]:
        """Brings one recorded turn to the board, together with what it has not taken before. Returns ranks by raw user
        id, and the mark.

        Ranks are told only if the board is known to have all that was committed.
        """
        if not taken.recording.rows:
            return {}, mark
        rows = {row.user.bytes: row for row in taken.recording.rows}
        missed = [row for raw, row in self._unprojected.items() if raw not in rows]
        span = taken.span
        if self._gap_span is not None and self._gap_span.writer == span.writer:
            span = span._replace(first=self._gap_span.first)
        try:
            with guard(self.breaker):
                applied = await self.projection.apply(span, [*taken.recording.rows, *missed], taken.recording.told)
        except StorageUnavailable:
            applied = None
            self.agreement.unprojected(span.writer, span.last)
            self.limits.distrust()
            with suppress(StorageUnavailable):  # of PostgreSQL, just after it has recorded: the next turn tries again
                await self._detach()
        # not earlier: a read that is under way may be older than this call
        self.agreement.acknowledge(span.writer, span.last)
        if applied is None:
            self.agreement.unprojected(span.writer, span.last)
            self._keep(rows, span)
            return {}, mark
        if applied.sequence >= span.last:
            self._forget_gap()
            self.agreement.projected(span.writer, applied.sequence)
        else:  # turns before it are missing: the projector brings them, if they are not in the gap
            self.agreement.unprojected(span.writer, span.last)
            self._keep(rows, span)
        if not applied.is_complete or self.agreement.in_doubt:
            return {}, applied.mark
        # the missed rows' ranks come last: nobody waits for them
        return dict(zip(rows, applied.ranks, strict=False)), applied.mark

    def _keep(self, rows: Mapping[bytes, LedgerRow], span: SequenceRange) -> None:
        """They go out again with the next turn, which then covers these turns too: so a gap closes however soon the
        next turn comes.

        Over the bound the rows are left to the projector, and the turns wait for it.
        """
        self._unprojected.update(rows)
        self._gap_span = span
        if len(self._unprojected) > GAP_ROWS:
            self._forget_gap()

    def _forget_gap(self) -> None:
        self._unprojected, self._gap_span = {}, None

    async def _detach(self) -> None:
        """Tells all writers, by way of PostgreSQL, that this one can't reach Redis. Until then they don't know what
        they miss.

        Raises StorageUnavailable. The projector calls it off.
        """
        number = self.writer.number
        if number not in self.agreement.detached:
            await self.writer.ask(lambda conn: outbox.detach(conn, [number]))
            self.agreement.detached.add(number)

    # ---- what was there before --------------------------------------------------------------------------------------

    async def _find_duplicates(
        self, claims: Sequence[SubmittedAction], outcomes: list[Outcome | None]
    ) -> dict[int, int]:
        """409 goes before 429 and 400: whoever was turned away or found no new key is looked up among what was recorded
        before.

        Returns by place how long ago that was (ms).
        """
        asked = [place for place, outcome in enumerate(outcomes) if outcome is None or _was_turned_away(outcome)]
        if not asked:
            return {}
        try:
            found = await self.writer.ask(
                lambda conn: ledger.find_recorded(conn, [claims[place] for place in asked], self.writer.span())
            )
        except StorageUnavailable:
            if len(asked) == len(claims):
                raise
            for place in asked:  # the others are recorded, and are told so
                outcomes[place] = OUTCOME_UNKNOWN
            return {}
        again = {asked[at]: before for at, before in found.items()}
        ranks = await self._bring({claims[place].user for place in again}) if again else {}
        for place, before in again.items():
            original = before.duplicate.original
            outcomes[place] = Duplicate(original and _ranked(original, ranks.get(original.user.bytes)))
        return {place: before.age_ms for place, before in again.items()}

    async def _bring(self, users: Collection[UUID]) -> dict[bytes, int | None]:
        """Brings users' present rows to the board, before they are told of an earlier outcome: whoever recorded it may
        have died then.

        Returns their ranks by raw user id, as far as they are certain.
        """
        applied = None
        try:
            current_rows = await self.writer.ask(lambda conn: ledger.current_rows(conn, dict.fromkeys(users, 0)))
            rows = [row for row in current_rows if row.total is not None]  # who is deleted is noted in the outbox
            with guard(self.breaker):
                applied = await self.projection.apply(SequenceRange(self.writer.number, 1, 0), rows, [])
        except StorageUnavailable:
            pass
        if applied is None:
            self.agreement.doubt(Doubt.BEHIND)
            return {}
        if not applied.is_complete or self.agreement.in_doubt:
            return {}
        return {row.user.bytes: rank for row, rank in zip(rows, applied.ranks, strict=True)}

    async def _release_reservations(
        self,
        claims: Sequence[SubmittedAction],
        judgements: Sequence[LimitDecision],
        outcomes: Sequence[Outcome | None],
        ages: Mapping[int, int],
    ) -> None:
        """Slots and cooldowns that this batch newly reserved for what then did not count."""
        given_back = []
        for place, (claim, judgement, outcome) in enumerate(zip(claims, judgements, outcomes, strict=True)):
            if judgement.reserved and (what := judgement.reserved & _to_return(claim, outcome, ages.get(place, 0))):
                given_back.append((claim, what))
        if given_back:
            try:
                await self.limits.release(given_back)
            except StorageUnavailable:
                self.breaker.failed(monotonic())  # they expire by themselves


def _ranked(recorded: Recorded, rank: int | None) -> Recorded:
    return msgspec.structs.replace(recorded, rank=rank)


def _was_turned_away(outcome: Outcome) -> bool:
    """By a limit or a rule, in the stores."""
    return (
        isinstance(outcome, Refusal)
        and outcome.code in {Code.RATE_LIMITED, Code.INVALID_ACTION}
        and outcome is not UNSTORABLE_ACTION
    )


def _to_return(claim: SubmittedAction, outcome: Outcome | None, age_ms: int) -> int:
    """What a claim must not keep of its reservation, given its outcome; `age_ms` is that of the action that it
    repeats."""
    match outcome:
        case Recorded() | Refusal(code=Code.SERVICE_UNAVAILABLE):  # a retry of what is in doubt finds its slot again
            return 0
        # of a young action it is that one's own: the other committer may have recorded it on this reservation
        case Duplicate():
            return (SLOT if age_ms >= WINDOW_MS else 0) | (COOLDOWN if age_ms >= claim.cooldown_ms else 0)
        case Refusal(code=Code.RATE_LIMITED):  # by the action log, which knows more than Redis
            return SLOT | COOLDOWN
        # by its rule, or poisoned: the slot stays taken, like any refused action's
        case Refusal() if outcome is not USER_DELETED:
            return COOLDOWN
        case _:
            return SLOT | COOLDOWN
