"""Reading the query of a stream, a poll or a WebSocket, within its bounds."""

import pytest

from scoreboard.domain.errors import Refusal
from scoreboard.live.transports.query import LiveQuery, query_token, read_query
from tests.web.requests import request

BEYOND = [b"since=" + b"x" * 1024, b"token=a&" * 20, b"&" * 1000 + b"token=a"]


def test_a_query_within_its_bounds_is_read() -> None:
    """A parameter that is missing has its default."""
    assert read_query(b"since=7-40&wait=3&token=a") == LiveQuery(
        "leaderboard", "7-40", delta=False, wait=3.0, token="a"
    )
    assert query_token(request(target=b"/?token=a")) == "a"
    assert query_token(request(target=b"/?since=a")) is None


@pytest.mark.parametrize("query", BEYOND)
def test_a_query_beyond_its_bounds_is_not_parsed(query: bytes) -> None:
    """A stream and a poll are refused. For a WebSocket it counts as an invalid token: 4401, not an anonymous viewer."""
    refusal = read_query(query)
    assert isinstance(refusal, Refusal)
    assert [error.field for error in refusal.errors] == ["query"]
    assert query_token(request(target=b"/?token&" + query)) == ""


def test_a_query_does_not_print_its_token() -> None:
    """So that it can't end up in a log."""
    assert "hidden" not in repr(read_query(b"token=hidden"))
