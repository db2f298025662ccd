"""Who may send how much of a large body."""

from collections.abc import Hashable

from scoreboard.domain.errors import UNAUTHORIZED, Code, Refusal
from scoreboard.http.request import BODY_BYTES, Request
from scoreboard.web import large_bodies
from scoreboard.web.large_bodies import FULL, LargeBodyLimits
from scoreboard.web.route import Route
from tests.web.requests import request

LIMIT = 256 * 1024


async def never(_: Request) -> None:
    raise AssertionError("no request is handled here")


ROUTES = [
    Route(method="PUT", path="/files/<name>", handler=never, max_body_bytes=LIMIT),
    Route(method="POST", path="/bulk", handler=never, direct=True, max_body_bytes=LIMIT),
    Route(method="POST", path="/small", handler=never, direct=True),
]


def upload(method: bytes = b"PUT", target: bytes = b"/files/a") -> Request:
    made = request(target=target)
    made.method = method
    return made


def test_only_the_named_routes_take_a_large_body() -> None:
    """By method and path, up to their own limit."""
    limits = LargeBodyLimits(ROUTES, lambda *_: "ada")
    assert limits.reserve(upload(), LIMIT) is None
    assert limits.reserve(upload(b"POST", b"/bulk"), LIMIT) is None
    for refused, size, most in (
        (upload(), LIMIT + 1, LIMIT),
        (upload(b"POST"), LIMIT, BODY_BYTES),
        (upload(b"POST", b"/bulk/more"), LIMIT, BODY_BYTES),
        (upload(b"POST", b"/small"), LIMIT, BODY_BYTES),
    ):
        assert limits.reserve(refused, size) == Refusal(Code.PAYLOAD_TOO_LARGE, f"a body may have {most} bytes")


def test_nobody_sends_a_large_body_without_a_token() -> None:
    """401, and nothing is reserved."""
    limits = LargeBodyLimits(ROUTES, lambda *_: UNAUTHORIZED)
    assert limits.reserve(upload(), LIMIT) is UNAUTHORIZED


def test_what_comes_at_once_is_bounded() -> None:
    """For each caller, so that one cannot take all, and for the node. What is released is free again, once."""
    who: Hashable = "ada"
    limits = LargeBodyLimits(ROUTES, lambda *_: who)
    sent = [upload() for _ in range(large_bodies.MAX_CALLER_BYTES_AT_ONCE // LIMIT)]
    assert [limits.reserve(one, LIMIT) for one in sent] == [None] * len(sent)
    assert limits.reserve(upload(), LIMIT) is FULL
    for number in range(1, large_bodies.MAX_BYTES_AT_ONCE // large_bodies.MAX_CALLER_BYTES_AT_ONCE):
        who = number
        assert [limits.reserve(upload(), LIMIT) for _ in sent] == [None] * len(sent)
    who = "bob"
    assert limits.reserve(upload(), BODY_BYTES + 1) is FULL
    limits.release(sent[0])
    limits.release(sent[0])
    assert limits.reserve(upload(), LIMIT) is None
    assert limits.reserve(upload(), LIMIT) is FULL
