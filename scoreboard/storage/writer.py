"""A committer's own PostgreSQL connection, and how it records a batch in spite of errors.

1. A writer's batches have the sequence numbers 1, 2, 3 … Writer id and sequence identify a batch when its outcome was
   lost, and show when an older database was restored.
2. After an error of the data the batch is halved, until the bad action is alone.
3. Actions of users whose rows another session holds are separated from the batch.
4. After a deadlock the batch is tried once more.
5. Every error that is not an error reply of PostgreSQL ends the connection.

Coroutines run in asyncio; one batch at a time.
"""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

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
from scoreboard.drivers.bridge import postgres_errors
from scoreboard.drivers.conditions import costs_connection
from scoreboard.drivers.deadline import bounded_aio
from scoreboard.storage.agreement import Agreement, StaleReason
from scoreboard.storage.postgres import ledger
from scoreboard.storage.postgres.ledger import ActionLogMustDecide, DatabaseRestored, LogLimits, Recording

T = TypeVar("T")
log = structlog.get_logger()

# A batch takes milliseconds. After this time the connection is terminated, so that two tries fit an action's 3 s.
STATEMENT_SECONDS = 1.4

_LOCKS = (asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError)  # 40P01, 55P03
# classes 22, 23, 54
_DATA = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)


class RecordedBatch(NamedTuple):
    """What was recorded under one sequence number: the committer's batch, or a part of it. `places` are those of its
    actions in the committer's batch."""

    places: Sequence[int]
    recording: Recording
    sequences: SequenceRange


class CommitterConnector(Protocol):
    """What opens a committer's connection: `Stores`, or in tests a `PostgresConnector` alone."""

    async def connect_committer_aio(self) -> asyncpg.Connection:
        """A new connection. Raises StorageUnavailable."""


class Writer:
    """One connection, one writer id, and the next sequence number."""

    __slots__ = ("_connector", "agreements", "boards", "conn", "limits", "sequence", "writer_id")

    def __init__(
        self,
        connector: CommitterConnector,
        limits: LogLimits,
        agreements: Sequence[Agreement],
    ) -> None:
        """`agreements` are those of the boards for which actions are recorded."""
        self._connector, self.limits, self.agreements = connector, limits, agreements
        self.boards = tuple(agreement.board for agreement in agreements)
        self.conn: asyncpg.Connection | None = None
        self._new_writer_id()

    @property
    def is_connected(self) -> bool:
        return self.conn is not None and not self.conn.is_closed()

    def next_sequences(self) -> SequenceRange:
        """The number that the next batch gets."""
        return SequenceRange(self.writer_id, self.sequence, self.sequence)

    async def connection_aio(self) -> asyncpg.Connection:
        """The open connection; opens a new one if needed. Raises StorageUnavailable within the connect time-out."""
        conn = self.conn
        if conn is None or conn.is_closed():
            conn = self.conn = await self._connector.connect_committer_aio()
        return conn

    async def call_aio(self, function_aio: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Runs statements on the connection, bounded by STATEMENT_SECONDS. Raises StorageUnavailable."""
        conn = await self.connection_aio()
        with postgres_errors():
            return await bounded_aio(conn, STATEMENT_SECONDS, function_aio(conn))

    async def record_aio(
        self, actions: Sequence[SubmittedAction], *, by_log: bool = False, skip_locked: bool = False
    ) -> list[RecordedBatch]:
        """Records the actions: as one batch, or as several smaller ones when bad or locked ones had to be separated.

        `by_log`: the action log decides on the rate limits. `skip_locked`: rows that another session holds are not
        waited for. Actions of users whose rows are held have the outcome LOCKED: nothing of them was recorded. Without
        `skip_locked` that happens only after the lock time-out.

        Raises StorageUnavailable when nothing of the batch was recorded, or when it can't be known. When PostgreSQL
        fails after a part was recorded, the rest has the outcome OUTCOME_UNKNOWN (503) instead. Cancelling ends the
        connection and gives the writer a new id, as after every unknown outcome.
        """
        recorded: list[RecordedBatch] = []
        places: Sequence[int] = range(len(actions))
        try:
            if skip_locked:
                places = await self._set_locked_apart_aio(actions, places, recorded)
            if places:
                await self._record_aio(actions, places, recorded, self.limits if by_log else None)
        except StorageUnavailable:
            if not recorded:
                raise
            done = {place for part in recorded for place in part.places}
            rest = [place for place in range(len(actions)) if place not in done]
            recorded.append(RecordedBatch(rest, _all(OUTCOME_UNKNOWN, rest), self.next_sequences()))
        except BaseException:
            self._new_writer_id()
            raise
        return recorded

    def close(self) -> None:
        """Ends the connection, and the call that uses it. The next batch uses a new connection and a new writer id."""
        if self.conn is not None:
            self.conn.terminate()
        self._new_writer_id()

    async def _record_aio(
        self,
        actions: Sequence[SubmittedAction],
        places: Sequence[int],
        recorded: list[RecordedBatch],
        log_limits: LogLimits | None,
    ) -> None:
        batch, sequences = [actions[place] for place in places], self.next_sequences()
        try:
            recording = await self._record_or_resolve_aio(batch, sequences, log_limits)
        except DatabaseRestored:
            log.warning("writer_renumbered", store="postgresql", writer=self.writer_id, lost_sequence=self.sequence - 1)
            self._mark_stale(StaleReason.HISTORY_LOST)
            self._new_writer_id()
            await self._record_aio(actions, places, recorded, log_limits)
            return
        except ActionLogMustDecide:
            self._mark_stale(StaleReason.DETACHED)
            await self._record_aio(actions, places, recorded, self.limits)
            return
        except _LOCKS as exc:
            free = await self._set_locked_apart_aio(actions, places, recorded)
            if len(free) == len(places):  # no user's row is held, or not any more
                await self._halve_aio(
                    actions, places, recorded, log_limits, out_of_service(f"The database is busy ({exc.sqlstate}).")
                )
            elif free:
                await self._record_aio(actions, free, recorded, log_limits)
            return
        except asyncpg.UniqueViolationError as exc:
            if exc.constraint_name != "commits_pkey":
                await self._halve_aio(actions, places, recorded, log_limits, UNSTORABLE_ACTION)
                return
            self._new_writer_id()  # a delayed try of an earlier batch has used this number
            await self._record_aio(actions, places, recorded, log_limits)
            return
        except (*_DATA, ValueError):  # ValueError: asyncpg's own DataError, or text that has no UTF-8
            await self._halve_aio(actions, places, recorded, log_limits, UNSTORABLE_ACTION)
            return
        if recording.rows:
            self.sequence += 1
        recorded.append(RecordedBatch(places, recording, sequences))

    async def _set_locked_apart_aio(
        self, actions: Sequence[SubmittedAction], places: Sequence[int], recorded: list[RecordedBatch]
    ) -> list[int]:
        """The places of actions whose users' rows no other session holds. The others get the outcome LOCKED."""
        users = {actions[place].user for place in places}
        held = await self.call_aio(lambda conn: ledger.find_locked_aio(conn, users))
        apart = [place for place in places if actions[place].user in held]
        if apart:
            recorded.append(RecordedBatch(apart, _all(LOCKED, apart), self.next_sequences()))
        return [place for place in places if actions[place].user not in held]

    async def _halve_aio(
        self,
        actions: Sequence[SubmittedAction],
        places: Sequence[int],
        recorded: list[RecordedBatch],
        log_limits: LogLimits | None,
        alone: Outcome,
    ) -> None:
        if len(places) == 1:
            recorded.append(RecordedBatch(places, _all(alone, places), self.next_sequences()))
            return
        middle = len(places) // 2
        await self._record_aio(actions, places[:middle], recorded, log_limits)
        await self._record_aio(actions, places[middle:], recorded, log_limits)

    async def _record_or_resolve_aio(
        self, batch: Sequence[SubmittedAction], sequences: SequenceRange, log_limits: LogLimits | None
    ) -> Recording:
        """Tries the batch, and once more after a deadlock or when the first try's outcome is unknown.

        Raises error replies of the data and of locks, DatabaseRestored, ActionLogMustDecide and StorageUnavailable.
        """
        await self.connection_aio()  # a batch that was never sent has no unknown outcome
        try:
            try:
                return await self._try_aio(batch, sequences, log_limits)
            except asyncpg.DeadlockDetectedError:
                return await self._try_aio(batch, sequences, log_limits)
        except StorageUnavailable as exc:
            if self.is_connected:
                if costs_connection(exc):
                    self.conn.terminate()  # type: ignore[union-attr]  # it is connected
                raise  # an error reply: nothing was recorded
            log.warning("batch_interrupted", why=exc.why, actions=len(batch))
            return await self._resolve_aio(batch, sequences, log_limits)

    async def _resolve_aio(
        self, batch: Sequence[SubmittedAction], sequences: SequenceRange, log_limits: LogLimits | None
    ) -> Recording:
        """Tries the same batch and number on a new connection. The unique keys make it wait for a first try that still
        runs, and show whether that was committed.

        Raises StorageUnavailable when that can't be found out.
        """
        try:
            try:
                # a refusal of this try does not show whether the first one was committed
                recording = await self._try_aio(batch, sequences, log_limits or self.limits)
            except asyncpg.UniqueViolationError as exc:
                if exc.constraint_name != "commits_pkey":
                    raise
            else:
                if recording.rows:
                    return recording
                if not await self.call_aio(lambda conn: ledger.has_sequence_aio(conn, sequences)):
                    self._new_writer_id()  # the first try may still arrive, and use this number
                    return recording
            return await self.call_aio(lambda conn: ledger.read_back_aio(conn, batch, sequences, self.boards))
        except (StorageUnavailable, DatabaseRestored, *_LOCKS) as exc:
            self._new_writer_id()  # it is unknown whether the number is used, and a gap would stall the projector
            raise (
                exc
                if isinstance(exc, StorageUnavailable)
                else StorageUnavailable("postgresql", f"{type(exc).__name__}: {exc}")
            ) from exc

    async def _try_aio(
        self, batch: Sequence[SubmittedAction], sequences: SequenceRange, log_limits: LogLimits | None
    ) -> Recording:
        conn = await self.connection_aio()
        try:
            with postgres_errors():
                return await bounded_aio(
                    conn, STATEMENT_SECONDS, ledger.record_aio(conn, batch, sequences, log_limits, self.boards)
                )
        except StorageUnavailable as exc:
            if isinstance(exc.__cause__, _LOCKS):
                raise exc.__cause__ from None
            raise

    def _mark_stale(self, reason: StaleReason) -> None:
        """Adds the reason to every board: it is about the database, not about one board."""
        for agreement in self.agreements:
            agreement.mark_stale(reason)

    def _new_writer_id(self) -> None:
        self.writer_id, self.sequence = secrets.randbits(63), 1


def _all(outcome: Outcome, batch: Sequence[object]) -> Recording:
    return Recording([outcome] * len(batch), [], [])
