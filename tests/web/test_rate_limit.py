"""What is counted under an address, and as what."""

from types import SimpleNamespace
from typing import cast
from uuid import UUID

import pytest

from scoreboard.domain.paths import AVATAR_PREFIX, LEADERBOARD_PATH
from scoreboard.operations.authenticator import Authenticator
from scoreboard.web.authorization import Bearer
from scoreboard.web.client_address import Addresses
from scoreboard.web.connection_limits import FLOOD_REFUSALS, FLOODING_USERS, PROBES_PER_MINUTE, ConnectionLimits
from scoreboard.web.cors import Origins
from scoreboard.web.headers import ResponseHeaders
from scoreboard.web.rate_limit import (
    FILES_LIMIT_FACTOR,
    PICTURES_LIMIT_FACTOR,
    POLLS_LIMIT_FACTOR,
    USERS_LIMIT_FACTOR,
    RateLimitMiddleware,
)
from tests.web.requests import request

LIMIT = 10
FILE, PICTURE = "/static/page.js", f"{AVATAR_PREFIX}{UUID(int=1)}"
BOARD = LEADERBOARD_PATH


class NumberedUsers:
    """In place of an Authenticator: a token that is a number counts as verified, as that user's."""

    def cached_identity(self, token: str) -> SimpleNamespace | None:
        return SimpleNamespace(user=UUID(int=int(token))) if token.isdigit() else None


def gate() -> tuple[RateLimitMiddleware, ConnectionLimits]:
    connections = ConnectionLimits(Addresses(), 0, clock=lambda: 0.0)
    return RateLimitMiddleware(
        ResponseHeaders(Origins()),
        Origins(),
        Addresses(),
        connections,
        LIMIT,
        files=(FILE,),
        parameters={BOARD.encode(): frozenset({"limit"})},
        bearer=Bearer(cast("Authenticator", NumberedUsers())),
        clock=lambda: 0.0,
    ), connections


def passed(gate: RateLimitMiddleware, path: str, times: int, user: int = 0, peer: str = "192.0.2.1") -> int:
    """How many of `times` requests pass."""
    fields = ((b"authorization", b"Bearer %d" % user),) if user else ()
    return sum(gate.check_request(request(*fields, peer=peer, target=path.encode())) is None for _ in range(times))


def test_a_page_view_is_one_request() -> None:
    """An address may load its limit of pages, each with fifteen files and ten pictures; after that no page, but still
    files."""
    room, _ = gate()
    for _ in range(LIMIT):
        assert [passed(room, path, times) for path, times in (("/", 1), (FILE, 15), (PICTURE, 10))] == [1, 15, 10]
    assert passed(room, "/", 1) == 0
    assert passed(room, FILE, 1) == 1


@pytest.mark.parametrize(
    ("path", "most"),
    [
        ("/", LIMIT),
        (BOARD, LIMIT),
        (FILE, FILES_LIMIT_FACTOR * LIMIT),
        (PICTURE, PICTURES_LIMIT_FACTOR * LIMIT),
        ("/api/v1/scores/poll", POLLS_LIMIT_FACTOR * LIMIT),
        ("/livez", PROBES_PER_MINUTE),
        ("/static/nothing.js", LIMIT),
        ("/static//page.js", LIMIT),
    ],
)
def test_every_kind_has_a_bound(path: str, most: int) -> None:
    """Each kind of request has a limit, and in a flood the address is blocked; an unknown file counts as any other
    request."""
    room, connections = gate()
    assert passed(room, path, most + FLOOD_REFUSALS) == most
    assert connections.admit("192.0.2.1")
    assert passed(room, path, 1) == 0
    assert not connections.admit("192.0.2.1")
    assert passed(room, path, most + 1, peer="192.0.2.2") == most


def test_users_of_one_address_count_for_themselves() -> None:
    """Each has the whole limit, all together USERS_LIMIT_FACTOR as much; a token that this node has not verified counts
    under the address."""
    room, _ = gate()
    assert passed(room, BOARD, LIMIT + 5, user=1) == LIMIT
    assert passed(room, BOARD, LIMIT + 5) == LIMIT
    assert (
        sum(passed(room, BOARD, LIMIT, user=user) for user in range(2, USERS_LIMIT_FACTOR + 9))
        == (USERS_LIMIT_FACTOR - 1) * LIMIT
    )
    assert passed(room, BOARD, 1, user=2, peer="192.0.2.2") == 0  # of a user, from wherever it comes
    assert passed(room, BOARD, LIMIT + 5, user=900, peer="192.0.2.2") == LIMIT
    answer = room.check_request(request((b"authorization", b"Bearer x"), target=BOARD.encode(), peer="192.0.2.1"))
    assert answer is not None
    assert answer.status == 429


def kept_alive(room: RateLimitMiddleware, user: int, peer: str = "192.0.2.1") -> bool:
    """Whether the connection outlasts one more request of that user, which is refused."""
    asked = request((b"authorization", b"Bearer %d" % user), peer=peer, target=BOARD.encode())
    asked.keep_alive = True
    answer = room.check_request(asked)
    assert answer is not None
    assert (answer.status, b"Too many requests of this account." in answer.body) == (429, True)
    return asked.keep_alive


def test_a_user_who_floods_blocks_no_other_user() -> None:
    """Each further request costs the user a connection, from any address; others at the address connect and are
    answered."""
    room, connections = gate()
    assert passed(room, BOARD, LIMIT, user=1) == LIMIT
    assert all(kept_alive(room, 1) for _ in range(FLOOD_REFUSALS))
    assert not any(kept_alive(room, 1) for _ in range(FLOODING_USERS * FLOOD_REFUSALS))
    assert not kept_alive(room, 1, peer="192.0.2.2")
    assert connections.admit("192.0.2.1")
    assert passed(room, BOARD, LIMIT, user=2) == LIMIT
    assert passed(room, BOARD, LIMIT) == LIMIT


def test_many_users_who_flood_block_their_address() -> None:
    """Twenty at once do not block it; one more refused user does, like a flood of the address itself."""
    room, connections = gate()
    for user in range(1, FLOODING_USERS + 1):
        assert passed(room, BOARD, LIMIT, user=user) == LIMIT
        assert all(kept_alive(room, user) for _ in range(FLOOD_REFUSALS))
    assert connections.admit("192.0.2.1")
    assert passed(room, BOARD, LIMIT, user=99, peer="192.0.2.9") == LIMIT
    assert not kept_alive(room, 99)
    assert not connections.admit("192.0.2.1")
    assert connections.admit("192.0.2.9")


def test_a_refusal_says_when_to_try_again() -> None:
    """The layer, the seconds, and a sentence that has both."""
    room, _ = gate()
    assert passed(room, "/", LIMIT) == LIMIT
    answer = room.check_request(request(peer="192.0.2.1"))
    assert answer is not None
    assert b"retry-after: 61\r\n" in answer.fields
    assert b'"layer":"ip"' in answer.body
    assert b"Too many requests from this address. Next in 61 s." in answer.body
