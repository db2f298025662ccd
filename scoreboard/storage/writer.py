"""A committer's own PostgreSQL connection, and how a batch gets through it whatever happens.

Every batch of a writer has a turn (writer, 1, 2, 3 …), which is how an outcome that got lost on the way is found again,
and how the writer notices that an older database was restored. Errors of the data halve the batch until the bad action
stands alone; users whose rows another session holds are set apart; a deadlock is tried once more; whatever is not an
error reply of PostgreSQL costs the connection. asyncio-flavoured; one batch at a time.
"""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar

import asyncpg
import structlog

from scoreboard.domain.errors import StorageUnavailable
from scoreboard.domain.ledger_rows import SequenceRange
from scoreboard.domain.outcomes import (
    LOCKED,
    OUTCOME_UNKNOWN,
    UNSTORABLE_ACTION,
    Outcome,
    SubmittedAction,
    out_of_service,
)
from scoreboard.storage.agreement import Agreement, Doubt
from scoreboard.storage.connections.bridge import postgres_errors
from scoreboard.storage.connections.conditions import costs_connection
from scoreboard.storage.connections.deadline import bounded_aio
from scoreboard.storage.postgres import ledger
from scoreboard.storage.postgres.ledger import HistoryLost, Judge, LimitsUnchecked, Recording

T = TypeVar("T")
log = structlog.get_logger()

# a batch takes milliseconds; after this the connection is given up, so that two tries fit an action's 3 s
STATEMENT_SECONDS = 1.4

_LOCKS = (asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError)  # 40P01, 55P03
# classes 22, 23, 54
_DATA = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)


class RecordedTurn(NamedTuple):
    """One turn's recording; `places` are those of its claims in the batch."""

    places: Sequence[int]
    recording: Recording
    span: SequenceRange


class Writer:
    """One connection, one number, and the turn that comes next."""

    __slots__ = ("_connect", "agreements", "boards", "conn", "judge", "number", "turn")

    def __init__(
        self, connect: Callable[[], Awaitable[asyncpg.Connection]], judge: Judge, agreements: Sequence[Agreement]
    ) -> None:
        """`connect` makes a committer's connection. `judge` decides by the action log who has used up a rate limit.
        `agreements` are those of the boards that the actions are recorded for."""
        self._connect, self.judge, self.agreements = connect, judge, agreements
        self.boards = tuple(agreement.board for agreement in agreements)
        self.conn: asyncpg.Connection | None = None
        self._new_number()

    @property
    def is_connected(self) -> bool:
        return self.conn is not None and not self.conn.is_closed()

    def span(self) -> SequenceRange:
        """The turn that comes next."""
        return SequenceRange(self.number, self.turn, self.turn)

    async def ready(self) -> asyncpg.Connection:
        """The connection, made anew if it is gone. Raises StorageUnavailable within the connect time-out."""
        conn = self.conn
        if conn is None or conn.is_closed():
            conn = self.conn = await self._connect()
        return conn

    async def ask(self, question: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Runs statements on the connection, bounded by STATEMENT_SECONDS. Raises StorageUnavailable."""
        conn = await self.ready()
        with postgres_errors():
            return await bounded_aio(conn, STATEMENT_SECONDS, question(conn))

    async def record(
        self, claims: Sequence[SubmittedAction], *, by_log: bool = False, cautious: bool = False
    ) -> list[RecordedTurn]:
        """Records the claims, as one turn if it can be, as several where a bad one had to be set apart.

        `by_log`: the action log decides who has used up a rate limit. `cautious`: rows that another session holds are
        not waited for. Whoever's rows are held for longer than a moment is set apart with the outcome LOCKED: nothing
        of it was recorded.

        Raises StorageUnavailable when nothing of the batch was recorded or it can't be known. What is left when
        PostgreSQL goes away after a part was recorded has outcomes instead (503). Cancelling costs the connection and
        the number, like any end that can't be known.
        """
        taken: list[RecordedTurn] = []
        places: Sequence[int] = range(len(claims))
        try:
            if cautious:
                places = await self._set_apart(claims, places, taken)
            if places:
                await self._record(claims, places, taken, self.judge if by_log else None)
        except StorageUnavailable:
            if not taken:
                raise
            done = {place for part in taken for place in part.places}
            rest = [place for place in range(len(claims)) if place not in done]
            taken.append(RecordedTurn(rest, _all(OUTCOME_UNKNOWN, rest), self.span()))
        except BaseException:
            self._new_number()
            raise
        return taken

    def close(self) -> None:
        """Ends the connection. Whatever was under way, the next batch starts with a new one and a new number."""
        if self.conn is not None:
            self.conn.terminate()
        self._new_number()

    async def _record(
        self, claims: Sequence[SubmittedAction], places: Sequence[int], taken: list[RecordedTurn], judge: Judge | None
    ) -> None:
        batch, span = [claims[place] for place in places], self.span()
        try:
            recording = await self._once_more(batch, span, judge)
        except HistoryLost:
            log.warning("writer_renumbered", store="postgresql", writer=self.number, lost_turn=self.turn - 1)
            self._doubt(Doubt.HISTORY)
            self._new_number()
            await self._record(claims, places, taken, judge)
            return
        except LimitsUnchecked:
            self._doubt(Doubt.DETACHED)
            await self._record(claims, places, taken, self.judge)
            return
        except _LOCKS as exc:
            free = await self._set_apart(claims, places, taken)
            if len(free) == len(places):  # it is no user's row that is held, or not any more
                await self._halve(
                    claims, places, taken, judge, out_of_service(f"The database is busy ({exc.sqlstate}).")
                )
            elif free:
                await self._record(claims, free, taken, judge)
            return
        except asyncpg.UniqueViolationError as exc:
            if exc.constraint_name != "commits_pkey":
                await self._halve(claims, places, taken, judge, UNSTORABLE_ACTION)
                return
            self._new_number()  # an earlier try of another batch came late, and used this turn
            await self._record(claims, places, taken, judge)
            return
        except (*_DATA, ValueError):  # ValueError: asyncpg's own DataError, or text that has no UTF-8
            await self._halve(claims, places, taken, judge, UNSTORABLE_ACTION)
            return
        if recording.rows:
            self.turn += 1
        taken.append(RecordedTurn(places, recording, span))

    async def _set_apart(
        self, claims: Sequence[SubmittedAction], places: Sequence[int], taken: list[RecordedTurn]
    ) -> list[int]:
        """The places of those whose rows nobody holds. The others are LOCKED."""
        users = {claims[place].user for place in places}
        held = await self.ask(lambda conn: ledger.locked(conn, users))
        apart = [place for place in places if claims[place].user in held]
        if apart:
            taken.append(RecordedTurn(apart, _all(LOCKED, apart), self.span()))
        return [place for place in places if claims[place].user not in held]

    async def _halve(
        self,
        claims: Sequence[SubmittedAction],
        places: Sequence[int],
        taken: list[RecordedTurn],
        judge: Judge | None,
        alone: Outcome,
    ) -> None:
        if len(places) == 1:
            taken.append(RecordedTurn(places, _all(alone, places), self.span()))
            return
        middle = len(places) // 2
        await self._record(claims, places[:middle], taken, judge)
        await self._record(claims, places[middle:], taken, judge)

    async def _once_more(self, batch: Sequence[SubmittedAction], span: SequenceRange, judge: Judge | None) -> Recording:
        """A second try of the same turn where the first one's end is unknown, or a deadlock.

        Raises error replies of the data and of locks, HistoryLost, LimitsUnchecked.
        """
        await self.ready()  # no doubt of a batch that was never sent
        try:
            try:
                return await self._try(batch, span, judge)
            except asyncpg.DeadlockDetectedError:
                return await self._try(batch, span, judge)
        except StorageUnavailable as exc:
            if self.is_connected:
                if costs_connection(exc):
                    self.conn.terminate()  # type: ignore[union-attr]  # it is connected
                raise  # an error reply: PostgreSQL said no, nothing was recorded
            log.warning("batch_interrupted", why=exc.why, actions=len(batch))
            return await self._resolve(batch, span, judge)

    async def _resolve(self, batch: Sequence[SubmittedAction], span: SequenceRange, judge: Judge | None) -> Recording:
        """The same turn on a new connection: the keys wait for a first try that is still under way, then tell whether
        it went through.

        Raises StorageUnavailable when that can't be found out.
        """
        try:
            try:
                # a refusal now says nothing of the first try
                recording = await self._try(batch, span, judge or self.judge)
            except asyncpg.UniqueViolationError as exc:
                if exc.constraint_name != "commits_pkey":
                    raise
            else:
                if recording.rows:
                    return recording
                if not await self.ask(lambda conn: ledger.has_turn(conn, span)):
                    self._new_number()  # the first try may still begin, and use this turn
                    return recording
            return await self.ask(lambda conn: ledger.read_back(conn, batch, span, self.boards))
        except (StorageUnavailable, HistoryLost, *_LOCKS) as exc:
            self._new_number()  # the turn may be used or not, now or in a moment: a gap would stall the projector
            raise (
                exc
                if isinstance(exc, StorageUnavailable)
                else StorageUnavailable("postgresql", f"{type(exc).__name__}: {exc}")
            ) from exc

    async def _try(self, batch: Sequence[SubmittedAction], span: SequenceRange, judge: Judge | None) -> Recording:
        conn = await self.ready()
        try:
            with postgres_errors():
                return await bounded_aio(conn, STATEMENT_SECONDS, ledger.record(conn, batch, span, judge, self.boards))
        except StorageUnavailable as exc:
            if isinstance(exc.__cause__, _LOCKS):
                raise exc.__cause__ from None
            raise

    def _doubt(self, reason: Doubt) -> None:
        """What the database says of all its writers holds for every board."""
        for agreement in self.agreements:
            agreement.doubt(reason)

    def _new_number(self) -> None:
        self.number, self.turn = secrets.randbits(63), 1


def _all(outcome: Outcome, batch: Sequence[object]) -> Recording:
    return Recording([outcome] * len(batch), [], [])
