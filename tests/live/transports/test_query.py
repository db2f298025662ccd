"""What a query of a stream, a poll or a WebSocket says, within its bounds."""

import pytest

from scoreboard.domain.errors import Refusal
from scoreboard.live.transports.query import LiveQuery, query_token, read_query
from tests.web.requests import request

BEYOND = [b"since=" + b"x" * 1024, b"token=a&" * 20, b"&" * 1000 + b"token=a"]


def test_a_query_within_its_bounds_is_read() -> None:
    """With what it leaves out as it is usually."""
    assert read_query(b"since=7-40&wait=3&token=a") == LiveQuery(
        "leaderboard", "7-40", delta=False, wait=3.0, token="a"
    )
    assert query_token(request(target=b"/?token=a")) == "a"
    assert query_token(request(target=b"/?since=a")) is None


@pytest.mark.parametrize("query", BEYOND)
def test_a_query_beyond_them_is_not_taken_apart(query: bytes) -> None:
    """A stream and a poll are refused; of a WebSocket it counts as a token that is not valid: 4401, not a viewer
    without a token."""
    refusal = read_query(query)
    assert isinstance(refusal, Refusal)
    assert [error.field for error in refusal.errors] == ["query"]
    assert query_token(request(target=b"/?token&" + query)) == ""


def test_a_query_does_not_print_its_token() -> None:
    """Whatever logs it."""
    assert "hidden" not in repr(read_query(b"token=hidden"))
