"""The board's answer: what `limit` may be, and the caller's own place."""

from typing import cast
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain.boards import Snapshot
from scoreboard.domain.errors import Refusal
from scoreboard.operations.authenticator import Authenticator
from scoreboard.operations.read_leaderboard import Leaderboard
from scoreboard.operations.submit_action import SubmitAction
from scoreboard.storage.board_cache import Standing
from scoreboard.web.authorization import Bearer
from scoreboard.web.routes.scores import ScoreRoutes, encode_board, read_limit, with_own_place
from tests.web.requests import request
from tests.web.site import SNAPSHOT


@pytest.mark.parametrize(
    ("query", "limit"),
    [
        (b"", 10),
        (b"limit=1", 1),
        (b"limit=100", 100),
        (b"a=b", 10),
        (b"a=b&limit=7&c", 7),
        (b"limit=%35", 5),
        (b"%6cimit=5", 5),
        (b"Limit=5", 10),
    ],
)
def test_a_limit_from_1_to_100_is_read(query: bytes, limit: int) -> None:
    """Ten when there is none; unknown parameters are ignored."""
    assert read_limit(query) == limit


@pytest.mark.parametrize("query", [b"x" * 1025, b"&".join([b"a=1"] * 17), b"&" * 1000 + b"limit=5"])
def test_a_query_beyond_its_bounds_is_not_parsed(query: bytes) -> None:
    """400 that names the query."""
    refusal = read_limit(query)
    assert isinstance(refusal, Refusal)
    assert [error.field for error in refusal.errors] == ["query"]


@pytest.mark.parametrize(
    "limit",
    [
        "0",
        "101",
        "-1",
        "abc",
        "",
        "1.5",
        "1e1",
        "+1",
        "%201",
        "1%20",
        "01",
        "0x1",
        "１",
        "%D9%A3",
        "9" * 400,
        "1&limit=1",
        "1&limit=2",
        "1;2",
    ],
)
def test_any_other_limit_is_refused(limit: str) -> None:
    """It is not corrected: 400 that names the parameter."""
    refusal = read_limit(b"limit=" + limit.encode())
    assert isinstance(refusal, Refusal)
    assert [error.field for error in refusal.errors] == ["limit"]


@given(st.binary(max_size=60))
def test_no_query_raises(query: bytes) -> None:
    """Whatever the query string."""
    assert isinstance(read_limit(query), int | Refusal)
    assert isinstance(read_limit(b"limit=" + query), int | Refusal)


def test_the_answer_is_the_specifications() -> None:
    """Ten rows, the avatar only where there is one, the time of the last change."""
    body = msgspec.json.decode(encode_board(SNAPSHOT, 10).response.body)
    assert body["success"] is True
    assert list(body["data"]) == ["leaderboard", "lastUpdated"]
    assert body["data"]["lastUpdated"] == "2026-01-10T10:30:00.000Z"
    assert [row["rank"] for row in body["data"]["leaderboard"]] == list(range(1, 11))
    first, second = body["data"]["leaderboard"][:2]
    assert first == {
        "rank": 1,
        "userId": str(UUID(int=1)),
        "username": "Player 1",
        "score": 999,
        "avatarUrl": "https://example.org/a.png",
    }
    assert "avatarUrl" not in second


def test_a_stale_board_says_so() -> None:
    """And has another ETag."""
    stale = encode_board(msgspec.structs.replace(SNAPSHOT, stale=True), 10)
    assert msgspec.json.decode(stale.response.body)["data"]["stale"] is True
    assert stale.etag != encode_board(SNAPSHOT, 10).etag


@pytest.mark.parametrize("standing", [Standing(0, None), Standing(2**53 - 1, 1)])
def test_the_callers_place_is_put_in(standing: Standing) -> None:
    """Between the rows and the time; private, with an ETag of its own."""
    prepared = encode_board(SNAPSHOT, 3)
    response, etag = with_own_place(prepared, standing)
    assert msgspec.json.decode(response.body)["data"]["currentUser"] == {"rank": standing.rank, "score": standing.score}
    assert etag != prepared.etag
    assert b"cache-control: private, no-cache\r\nvary: authorization\r\n" in response.fields
    assert b"cache-control: no-cache\r\nvary: authorization\r\n" in prepared.response.fields


class ChangingLeaderboard:
    """In place of operations' Leaderboard: a test sets the newest snapshot."""

    newest: Snapshot = SNAPSHOT

    async def snapshot(self) -> Snapshot:
        return self.newest


async def test_all_clients_get_the_same_bytes() -> None:
    """The response is encoded once for each snapshot and limit."""
    leaderboard = ChangingLeaderboard()
    nobody, no_actions = cast("Authenticator", None), cast("SubmitAction", None)
    routes = ScoreRoutes(Bearer(nobody), no_actions, cast("Leaderboard", leaderboard))
    first, second = await routes.read(request()), await routes.read(request())
    assert first is second
    leaderboard.newest = msgspec.structs.replace(SNAPSHOT, rows=SNAPSHOT.rows[:1])
    third = await routes.read(request())
    assert len(msgspec.json.decode(third.body)["data"]["leaderboard"]) == 1
