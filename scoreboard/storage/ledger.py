"""The truth: what PostgreSQL records of a batch of actions, and what it says of one that was there before.

Called by `storage.commit` on a committer's own connection. asyncio-flavoured; error replies pass (the caller halves, retries or gives up).
"""

from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import NamedTuple
from uuid import UUID

import asyncpg

from scoreboard.domain.boards import user_id
from scoreboard.domain.outcomes import GONE, Claim, Duplicate, Outcome, Recorded
from scoreboard.storage.projection import Row, Span, Told

RECORD_SQL = files("scoreboard.storage").joinpath("record.sql").read_text("utf-8")

# What was recorded for (user, actionId) pairs, if anything. The key's processed_at leads to the log's one partition.
ORIGINALS_SQL = """
SELECT i.place, k.body_sha256, l.points_awarded, l.new_score, (extract(epoch FROM k.processed_at) * 1000)::bigint AS at_ms,
       (extract(epoch FROM clock_timestamp() - k.processed_at) * 1000)::bigint AS age_ms,
       k.processed_at = (SELECT committed_at FROM commits WHERE writer = $3 AND turn = $4) AS this_turn
FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS i(user_id, action_id, place)
JOIN action_keys k USING (user_id, action_id)
LEFT JOIN action_logs l ON l.user_id = k.user_id AND l.processed_at = k.processed_at AND l.action_id = k.action_id"""

HAS_TURN_SQL = "SELECT EXISTS (SELECT FROM commits WHERE writer = $1 AND turn = $2)"
ROWS_SQL = "SELECT user_id, total_score, reached, version FROM scores WHERE user_id = ANY($1)"


class Recording(NamedTuple):
    """A batch's effect. `outcomes` in the order of the claims; `rows` and `told` for the projection, empty when nothing was added."""

    outcomes: list[Outcome | None]  # None: processed before, `originals` tells
    rows: list[Row]
    told: list[Told]


class Before(NamedTuple):
    """What was recorded before under a claim's actionId."""

    duplicate: Duplicate
    this_turn: bool  # by the very turn that is asked about
    age_ms: int


async def record(conn: asyncpg.Connection, claims: Sequence[Claim], span: Span) -> Recording:
    """Records the claims under the writer's turn `span.last`; the turn is used up only if `rows` is not empty."""
    rows = await conn.fetch(
        RECORD_SQL,
        [claim.user for claim in claims],
        [claim.action_id for claim in claims],
        [claim.action_type for claim in claims],
        [claim.worth for claim in claims],
        [claim.signature for claim in claims],
        [claim.metadata for claim in claims],
        [claim.body_sha256 for claim in claims],
        span.writer,
        span.last,
    )
    recording = Recording([], [], [])
    places: dict[UUID, int] = {}
    for claim, row in zip(claims, rows, strict=True):
        if row["gone"]:
            recording.outcomes.append(GONE)
        elif row["new_score"] is None:
            recording.outcomes.append(None)
        else:
            if claim.user not in places:
                places[claim.user] = len(recording.rows)
                recording.rows.append(Row(claim.user, row["total_score"], row["reached"], row["version"]))
            _note(recording, claim, int(claim.worth), row["new_score"], row["at_ms"], places)  # type: ignore[arg-type]  # admitted: points
    return recording


async def originals(conn: asyncpg.Connection, claims: Sequence[Claim], span: Span) -> dict[int, Before]:
    """By place: what was recorded for a claim before. Places without a record are absent."""
    found = await conn.fetch(ORIGINALS_SQL, [claim.user for claim in claims], [claim.action_id for claim in claims], span.writer, span.last)
    return {row["place"] - 1: Before(_original(claims[row["place"] - 1], row), bool(row["this_turn"]), row["age_ms"]) for row in found}


async def recovered(conn: asyncpg.Connection, claims: Sequence[Claim], span: Span) -> Recording:
    """The effect of a turn that went through although its answer was lost: read back instead of recorded again."""
    known = await originals(conn, claims, span)
    recording = Recording([], [], [])
    mine = {place: before.duplicate.original for place, before in known.items() if before.this_turn and before.duplicate.original}
    rows = {row["user_id"]: Row(*row) for row in await conn.fetch(ROWS_SQL, list({claims[place].user for place in mine}))}
    places: dict[UUID, int] = {}
    for place, claim in enumerate(claims):
        original = mine.get(place)
        if original and claim.user in rows:
            if claim.user not in places:
                places[claim.user] = len(recording.rows)
                recording.rows.append(rows[claim.user])
            _note(recording, claim, original.points, original.new, original.at_ms, places)
        else:
            recording.outcomes.append(None if place in known else GONE)
    return recording


async def has_turn(conn: asyncpg.Connection, span: Span) -> bool:
    """Whether the writer's turn `span.last` was committed."""
    return bool(await conn.fetchval(HAS_TURN_SQL, span.writer, span.last))


async def standings(conn: asyncpg.Connection, users: Iterable[UUID]) -> list[Row]:
    """The ledger's rows of these users; who has none is on no board any more (`total` None)."""
    wanted = list(users)
    rows = {row["user_id"]: Row(*row) for row in await conn.fetch(ROWS_SQL, wanted)}
    return [rows.get(user, Row(user, None, 0, 0)) for user in wanted]


def _note(recording: Recording, claim: Claim, points: int, new: int, at_ms: int, places: dict[UUID, int]) -> None:
    recording.outcomes.append(Recorded(claim.user, new - points, points, new, None, at_ms))
    recording.told.append(Told(user_id(claim.user), new - points, new, points, at_ms, claim.request_id, places[claim.user]))


def _original(claim: Claim, row: asyncpg.Record) -> Duplicate:
    """The same body again gets the first outcome; another body under the same id gets nothing. An archived log row can't be told either."""
    if row["body_sha256"] != claim.body_sha256 or row["new_score"] is None:
        return Duplicate(None)
    new, points = row["new_score"], row["points_awarded"]
    return Duplicate(Recorded(claim.user, new - points, points, new, None, row["at_ms"]))
