"""Records batches of actions in PostgreSQL, and reads what was recorded before. The ledger is authoritative.

Called by `storage.commit` and `storage.writer` on a committer's own connection. Coroutines run in asyncio. Error
replies of PostgreSQL are raised as they are: the caller halves the batch, retries, or fails.
"""

from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import NamedTuple, Protocol
from uuid import UUID

import asyncpg

from scoreboard.domain.bans import Ban, banned
from scoreboard.domain.boards import LEADERBOARD, Board, Totals, user_id
from scoreboard.domain.conditions import HeldStatus
from scoreboard.domain.errors import Refusal, ScoreboardError
from scoreboard.domain.ledger_rows import LedgerRow, ScoreEvent, SequenceRange
from scoreboard.domain.outcomes import USER_DELETED, Duplicate, Held, Outcome, Recorded, SubmittedAction
from scoreboard.storage.postgres import conditions
from scoreboard.storage.postgres.totals import for_board

# order numbers and versions of one row of `commits`, as in record.sql: more than a batch has actions
BATCH_VERSIONS = 4096

# For the leaderboard with other boards, and for the leaderboard alone.
RECORD_BOARDS_SQL = files("scoreboard.storage.postgres").joinpath("record.sql").read_text("utf-8")
RECORD_SQL = "\n".join(line for line in RECORD_BOARDS_SQL.splitlines() if not line.endswith("-- boards"))

# What was recorded for (user, actionId) pairs, if anything. The key's processed_at leads to the log's one partition.
RECORDED_SQL = """
SELECT i.place, k.body_sha256, l.points_awarded, l.new_score,
       (extract(epoch FROM k.processed_at) * 1000)::bigint AS at_ms,
       (extract(epoch FROM clock_timestamp() - k.processed_at) * 1000)::bigint AS age_ms,
       k.processed_at = (SELECT committed_at FROM commits WHERE writer = $3 AND turn = $4) AS in_this_batch,
       h.status, h.reason, h.points, (extract(epoch FROM h.held_at) * 1000)::bigint AS held_ms,
       (extract(epoch FROM h.expires_at) * 1000)::bigint AS expires_ms
FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS i(user_id, action_id, place)
JOIN action_keys k USING (user_id, action_id)
LEFT JOIN action_logs l ON l.user_id = k.user_id AND l.processed_at = k.processed_at AND l.action_id = k.action_id
LEFT JOIN held_actions h ON h.user_id = k.user_id AND h.action_id = k.action_id"""

# Locks the users' rows. FREE_SQL selects those of the users whose rows another session holds; it waits for no lock.
LOCK_SQL = "SELECT id FROM users WHERE id = ANY($1) ORDER BY id FOR UPDATE"
FREE_SQL = """
WITH free AS MATERIALIZED (SELECT id FROM users WHERE id = ANY($1) FOR KEY SHARE SKIP LOCKED),
     held AS MATERIALIZED (SELECT id FROM users WHERE id = ANY($1) EXCEPT SELECT id FROM free),
     scored AS MATERIALIZED (SELECT user_id FROM scores WHERE user_id = ANY($1) FOR NO KEY UPDATE SKIP LOCKED)
SELECT id FROM held
UNION SELECT user_id FROM scores WHERE user_id = ANY($1) AND user_id NOT IN (SELECT user_id FROM scored)"""

# Why `record_aio` recorded nothing. The column `commits.turn` holds the sequence.
REFUSED_SQL = """
SELECT $2 = 1 OR EXISTS (SELECT FROM commits WHERE writer = $1 AND turn = $2 - 1) AS continues,
       EXISTS (SELECT FROM detached_writers) AS detached"""

HAS_SEQUENCE_SQL = "SELECT EXISTS (SELECT FROM commits WHERE writer = $1 AND turn = $2)"
# What a banned user may read of the reason; at most one ban is in force.
BAN_REASON_SQL = "SELECT reason FROM bans WHERE user_id = $1 AND lifted_at IS NULL AND is_reason_shown"
ROWS_SQL = """
SELECT s.user_id, s.total_score, s.reached, s.version, coalesce(u.ban, 0)
FROM {totals} LEFT JOIN users AS u ON u.id = s.user_id AND u.ban <> 0 WHERE s.user_id = ANY($1)"""


class Recording(NamedTuple):
    """The effect of a batch. `outcomes` in the order of the actions. `rows` of all boards and `events` of the
    leaderboard are for the projections; both are empty when nothing was recorded."""

    outcomes: list[Outcome | None]  # None: processed before, see `find_recorded_aio`
    rows: list[LedgerRow]
    events: list[ScoreEvent]


class DatabaseRestored(ScoreboardError):
    """The writer's last batch is no longer in the database: an older one was restored. Nothing was recorded."""


class ActionLogMustDecide(ScoreboardError):
    """Another writer can't reach Redis, so the action log must decide on the rate limits. Nothing was recorded."""


class LogLimits(Protocol):
    """Limits that the action log can decide: `storage.redis.limits.UserLimits`, which this layer does not import."""

    async def decide_by_log_aio(
        self, conn: asyncpg.Connection, actions: Sequence[SubmittedAction], /
    ) -> Sequence[Refusal | None]:
        """Why each action is refused; None where it is admitted. The users' rows are locked."""


class RecordedAction(NamedTuple):
    """What was recorded before under an action's actionId. `age_ms`: since then."""

    duplicate: Duplicate | Held
    in_this_batch: bool  # it was recorded by the batch in question
    age_ms: int
    recorded: Recorded | None  # what the log has, if the body is the same


async def record_aio(
    conn: asyncpg.Connection,
    actions: Sequence[SubmittedAction],
    sequences: SequenceRange,
    log_limits: LogLimits | None = None,
    boards: Sequence[Board] = (LEADERBOARD,),
) -> Recording:
    """Records the actions on these boards as the writer's batch `sequences.last`. The number is used up only if the
    returned `rows` are not empty.

    With `log_limits`, the users' rows are locked first, and actions that it refuses are not recorded. So its
    decision is exact across nodes. Without it, the caller has checked the rate limits. The conditions of actions that
    have some are compared in the same transaction. Raises DatabaseRestored, ActionLogMustDecide, and what asyncpg
    raises.
    """
    conditional = [action for action in actions if action.conditions is not None]
    if log_limits is None and not conditional:
        return await _record_aio(conn, actions, sequences, boards, limits_checked=False)
    async with conn.transaction():
        decided: Sequence[Outcome | None] = [None] * len(actions)
        if log_limits is not None:
            await conn.fetch(LOCK_SQL, [action.user for action in actions])
            decided = await log_limits.decide_by_log_aio(conn, actions)
        if conditional:
            decided = await conditions.decide_aio(conn, actions, decided)
        admitted = [action for action, outcome in zip(actions, decided, strict=True) if outcome is None]
        recording = (
            await _record_aio(conn, admitted, sequences, boards, limits_checked=log_limits is not None)
            if admitted
            else Recording([], [], [])
        )
    outcomes = iter(recording.outcomes)
    return recording._replace(outcomes=[next(outcomes) if outcome is None else outcome for outcome in decided])


async def _record_aio(
    conn: asyncpg.Connection,
    actions: Sequence[SubmittedAction],
    sequences: SequenceRange,
    boards: Sequence[Board],
    *,
    limits_checked: bool,
) -> Recording:
    has_others = len(boards) > 1
    rows = await conn.fetch(
        RECORD_BOARDS_SQL if has_others else RECORD_SQL,
        [action.user for action in actions],
        [action.action_id for action in actions],
        [action.action_type for action in actions],
        [action.points_or_refusal for action in actions],
        [action.signature for action in actions],
        [action.metadata for action in actions],
        [action.body_sha256 for action in actions],
        sequences.writer,
        sequences.last,
        limits_checked,
        *(_feeds(actions, boards) if has_others else ()),
    )
    if not rows:
        why = await conn.fetchrow(REFUSED_SQL, sequences.writer, sequences.last)
        if why is not None and not why["continues"]:
            raise DatabaseRestored
        # or a writer was detached a moment ago: then the check was not needed, and costs little
        raise ActionLogMustDecide
    recording = Recording([], [], [])
    places: dict[UUID, int] = {}
    for action, row in zip(actions, rows, strict=True):
        if row["gone"]:
            recording.outcomes.append(USER_DELETED)
        elif row["ban"] == Ban.FULL:
            # Not in the statement: for a subselect, PostgreSQL plans every small batch anew, which takes a millisecond.
            recording.outcomes.append(banned(await conn.fetchval(BAN_REASON_SQL, action.user)))
        elif row["new_score"] is None:
            recording.outcomes.append(None)
        else:
            if action.user not in places:
                places[action.user] = len(recording.rows)
                recording.rows.append(
                    LedgerRow(LEADERBOARD, action.user, row["total_score"], row["reached"], row["version"], row["ban"])
                )
            points = action.points_or_refusal
            assert isinstance(points, int)  # an action that its rule refuses is never recorded
            _add_recorded(recording, action, points, row["new_score"], row["at_ms"], places)
    if has_others and rows[0]["board_rows"]:
        by_id = {board.id: board for board in boards}
        bans = {action.user: row["ban"] for action, row in zip(actions, rows, strict=True)}
        recording.rows.extend(
            LedgerRow(by_id[board], subject, total, reached, version, bans[subject])
            for board, subject, total, reached, version in rows[0]["board_rows"]
        )
    return recording


def _feeds(
    actions: Sequence[SubmittedAction], boards: Sequence[Board]
) -> tuple[list[int], list[str], list[str], list[str]]:
    """Which actions count for which boards beside the leaderboard: places, names, periods, segments."""
    places: list[int] = []
    names: list[str] = []
    periods: list[str] = []
    segments: list[str] = []
    for board in boards:
        if board.totals is not Totals.SCORES:
            fed = [place for place, action in enumerate(actions, 1) if board.counts(action.action_type)]
            places += fed
            names += [board.name] * len(fed)
            periods += [board.period] * len(fed)
            segments += [board.segment] * len(fed)
    return places, names, periods, segments


async def find_locked_aio(conn: asyncpg.Connection, users: Iterable[UUID]) -> set[UUID]:
    """Those of the users whose rows another session holds now. Waits for no lock."""
    return {row["id"] for row in await conn.fetch(FREE_SQL, list(users))}


async def find_recorded_aio(
    conn: asyncpg.Connection, actions: Sequence[SubmittedAction], sequences: SequenceRange
) -> dict[int, RecordedAction]:
    """What was recorded for each action before, by its place. Places without a record are absent."""
    found = await conn.fetch(
        RECORDED_SQL,
        [action.user for action in actions],
        [action.action_id for action in actions],
        sequences.writer,
        sequences.last,
    )
    return {row["place"] - 1: _known_action(actions[row["place"] - 1], row) for row in found}


async def read_back_aio(
    conn: asyncpg.Connection,
    actions: Sequence[SubmittedAction],
    sequences: SequenceRange,
    boards: Sequence[Board] = (LEADERBOARD,),
) -> Recording:
    """Reads the effect of a batch that was committed although its answer was lost."""
    known = await find_recorded_aio(conn, actions, sequences)
    recording = Recording([], [], [])
    mine = {place: before.recorded for place, before in known.items() if before.in_this_batch and before.recorded}
    users = {actions[place].user for place in mine}
    rows = await _rows_aio(conn, LEADERBOARD, users)
    places: dict[UUID, int] = {}
    for place, action in enumerate(actions):
        original = mine.get(place)
        if original and action.user in rows:
            if action.user not in places:
                places[action.user] = len(recording.rows)
                recording.rows.append(rows[action.user])
            _add_recorded(recording, action, original.points, original.new, original.at_ms, places)
        else:
            recording.outcomes.append(None if place in known else USER_DELETED)
    for board in boards:
        if board != LEADERBOARD:
            recording.rows.extend((await _rows_aio(conn, board, users)).values())
    return recording


async def has_sequence_aio(conn: asyncpg.Connection, sequences: SequenceRange) -> bool:
    """Whether the writer's batch `sequences.last` was committed."""
    return bool(await conn.fetchval(HAS_SEQUENCE_SQL, sequences.writer, sequences.last))


async def current_rows_aio(conn: asyncpg.Connection, board: Board, users: Mapping[UUID, int]) -> list[LedgerRow]:
    """The ledger's current rows of these users for a board. A user without a row is no longer on it (`total` None).

    `users`: each with the id of the last row of `commits` that names the user. The version of a removal comes from that
    id: it is newer than a score that was deleted before that row, and older than a score that was recorded after it.
    """
    rows = await _rows_aio(conn, board, users)
    return [rows.get(user) or LedgerRow(board, user, None, 0, last * BATCH_VERSIONS) for user, last in users.items()]


async def _rows_aio(conn: asyncpg.Connection, board: Board, users: Iterable[UUID]) -> dict[UUID, LedgerRow]:
    sql, args = for_board(ROWS_SQL, board, 1)
    return {row["user_id"]: LedgerRow(board, *row) for row in await conn.fetch(sql, list(users), *args)}


def _add_recorded(
    recording: Recording, action: SubmittedAction, points: int, new: int, at_ms: int, places: dict[UUID, int]
) -> None:
    recording.outcomes.append(Recorded(action.user, new - points, points, new, None, at_ms))
    recording.events.append(
        ScoreEvent(user_id(action.user), new - points, new, points, at_ms, action.request_id, places[action.user])
    )


def _recorded(action: SubmittedAction, row: asyncpg.Record) -> Recorded | None:
    """The first outcome of the same body. None for another body under the same id, for an action that is not recorded,
    and when the log row was archived."""
    if row["body_sha256"] != action.body_sha256 or row["new_score"] is None:
        return None
    new, points = row["new_score"], row["points_awarded"]
    return Recorded(action.user, new - points, points, new, None, row["at_ms"])


def _known_action(action: SubmittedAction, row: asyncpg.Record) -> RecordedAction:
    recorded = _recorded(action, row)
    duplicate: Duplicate | Held = Duplicate(recorded)
    if row["status"] is not None and row["body_sha256"] == action.body_sha256:
        duplicate = Held(
            action.user,
            action.action_id,
            action.action_type,
            row["points"],
            HeldStatus(row["status"]),
            row["held_ms"],
            row["expires_ms"],
            row["reason"],
        )
    return RecordedAction(duplicate, bool(row["in_this_batch"]), row["age_ms"], recorded)
