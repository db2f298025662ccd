"""Classifies failures of the stores: the store's condition, and whether the connection may be used again. Pure.

Every failure that keeps a store from being used has a condition. An error of the data (a unique violation, a number out
of range) has none. SQLSTATEs: https://www.postgresql.org/docs/current/errcodes-appendix.html. Redis' codes are the
first word of an error reply.
"""

import asyncpg
import redis.exceptions

from scoreboard.domain.errors import StorageUnavailable, StoreCondition

_BY_STATE = {
    "25006": StoreCondition.READ_ONLY,  # read_only_sql_transaction: a standby, or default_transaction_read_only
    "3D000": StoreCondition.DOWN,  # the database does not exist
    "3F000": StoreCondition.DOWN,  # these five: a dump is being restored, or the role lost its rights
    "42501": StoreCondition.DOWN,
    "42704": StoreCondition.DOWN,
    "42P01": StoreCondition.DOWN,
    "42703": StoreCondition.DOWN,
    "42883": StoreCondition.DOWN,
    "53100": StoreCondition.FULL,  # disk_full
    "55000": StoreCondition.DOWN,  # the database takes no connections
    "55P03": StoreCondition.BUSY,  # lock_not_available
    "57014": StoreCondition.BUSY,  # query_canceled, by a time-out or by another session
}
_BY_CLASS = {
    "08": StoreCondition.DOWN,  # connection
    "25": StoreCondition.BUSY,  # transaction state: a time-out ended the transaction
    "28": StoreCondition.DOWN,  # log-in refused
    "40": StoreCondition.BUSY,  # rolled back: deadlock, serialization, conflict with recovery
    "53": StoreCondition.BUSY,  # resources: memory, connections
    "57": StoreCondition.DOWN,  # shutdown, start, an administrator ended the session
    "58": StoreCondition.DOWN,  # its operating system
}
# asyncpg's own: the connection's cached statements no longer match the schema.
_OUTDATED = (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError)
# A prepared statement is missing in the session, or exists already: a pooler gives sessions to several connections.
POOLER_ERRORS = (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError)
# What asyncpg raises without an error reply. AttributeError, which may follow `terminate`, is treated in
# drivers.deadline.
_NO_REPLY = (OSError, TimeoutError, EOFError, asyncpg.InterfaceError, asyncpg.InternalClientError)

_BY_CODE = {
    "READONLY": StoreCondition.READ_ONLY,
    "MISCONF": StoreCondition.READ_ONLY,  # it can't save its data and refuses writes
    "NOREPLICAS": StoreCondition.READ_ONLY,  # too few replicas (min-replicas-to-write)
    "OOM": StoreCondition.FULL,
    **dict.fromkeys(
        (
            "MASTERDOWN",
            "LOADING",
            "NOAUTH",
            "WRONGPASS",
            "NOPERM",
            "CLUSTERDOWN",
            "MOVED",
            "ASK",
            "UNBLOCKED",
            "REDIRECT",
        ),
        StoreCondition.DOWN,
    ),
}
_BY_KIND = (  # redis-py cuts the code off some replies
    (redis.exceptions.ReadOnlyError, "READONLY"),
    (redis.exceptions.OutOfMemoryError, "OOM"),
    (redis.exceptions.MasterDownError, "MASTERDOWN"),
    (redis.exceptions.ClusterDownError, "CLUSTERDOWN"),
    (redis.exceptions.BusyLoadingError, "LOADING"),
    (redis.exceptions.NoPermissionError, "NOPERM"),
    (redis.exceptions.AuthenticationError, "NOAUTH"),
    (redis.exceptions.AskError, "MOVED"),
)
_PIPELINED = "caused error: "  # redis-py puts the command before the reply of a pipeline


def postgres_condition(exc: BaseException) -> StoreCondition | None:
    """PostgreSQL's condition, from an exception of asyncpg; None for an error of the data or of the code."""
    if isinstance(exc, _OUTDATED + POOLER_ERRORS):
        return StoreCondition.DOWN
    if isinstance(exc, asyncpg.PostgresError):
        state = exc.sqlstate or ""
        return _BY_STATE.get(state) or _BY_CLASS.get(state[:2])
    # ValueError: asyncpg's own DataError, nothing was sent
    if isinstance(exc, _NO_REPLY) and not isinstance(exc, ValueError):
        return StoreCondition.DOWN
    return None


def redis_condition(exc: BaseException) -> StoreCondition | None:
    """Redis' condition, from an exception of redis-py; None when it is no failure of a call."""
    if (code := reply_code(exc)) is not None:
        return _BY_CODE.get(code, StoreCondition.BUSY)
    if isinstance(exc, redis.exceptions.RedisError | OSError | TimeoutError):
        return StoreCondition.DOWN
    return None


def reply_code(exc: BaseException) -> str | None:
    """The first word of an error reply of Redis; None when `exc` is none."""
    for kind, code in _BY_KIND:
        if isinstance(exc, kind):
            return code
    if isinstance(exc, redis.exceptions.ResponseError):
        return str(exc).rpartition(_PIPELINED)[2].partition(" ")[0]
    return None


def costs_connection(exc: BaseException) -> bool:
    """Whether the connection that raised this must be closed: it leads to the wrong server, or its state is unknown.

    Accepts exceptions of asyncpg and redis-py, StorageUnavailable, and cancellations. A cancellation closes the
    connection too, since the answer may still come.
    """
    if isinstance(exc, StorageUnavailable):
        condition: StoreCondition | None = exc.condition
    elif isinstance(exc, asyncpg.PostgresError | asyncpg.InternalClientError):
        condition = postgres_condition(exc)
    elif isinstance(exc, redis.exceptions.RedisError):
        condition = redis_condition(exc)
    else:
        return not isinstance(exc, ValueError)
    return condition in {StoreCondition.DOWN, StoreCondition.READ_ONLY}
