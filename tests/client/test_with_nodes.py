"""The client with real nodes, on both loops: a session from log-in to log-out, a board that outlives its server, an
answer that is lost."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import anyio
import anyio.to_thread
import asyncpg
import httpx
import pytest
import trio

from scoreboard.client import Credentials, LiveBoard, Refused, backoff, clock, following
from scoreboard.domain.protocol import HEARTBEAT_SECONDS
from scoreboard.domain.sessions import CLIENT_ANSWER_SECONDS, CLIENT_PAUSE_SECONDS
from tests.background_loop import in_background
from tests.client.loops import on_both_loops
from tests.conftest import execute, in_asyncio, in_thread
from tests.e2e.server_processes import ServerProcess, provision
from tests.outside_keys import ed_key, key_set
from tests.storage.proxy import Fault, proxy_before

StartNode = Callable[..., ServerProcess]
NAME, PASSWORD = "somebody", "a long password"
HOUR = 3600.0


def register(node: ServerProcess) -> None:
    body = {"username": NAME, "email": "somebody@example.org", "password": PASSWORD}
    assert httpx.post(f"{node.url}/api/v1/auth/register", json=body).status_code == httpx.codes.CREATED


def provisioned(node: ServerProcess, count: int) -> list[Credentials]:
    """So many users with ready tokens."""

    async def make() -> list[Credentials]:
        async with httpx.AsyncClient() as http:
            return [user.signing.credentials for user in await provision(node, http, count)]

    return in_thread(trio.run, make)


def fetchval(url: str, query: str) -> Any:
    """One value of the database."""

    async def run() -> Any:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return in_asyncio(run)


async def score_of(board: LiveBoard, user: str, score: int) -> None:
    """Returns when the board shows it."""
    with anyio.fail_after(20):
        while score not in {entry.score for entry in board.entries if entry.userId == user}:
            await board.changed()


@on_both_loops
async def test_a_token_of_an_outside_issuer_opens_a_session(
    client: ModuleType, start_node: StartNode, tmp_path: Path
) -> None:
    """`exchange` is a log-in: the session acts, renews itself and is logged out. A token that has expired is
    refused."""
    keys = tmp_path / "keys.json"
    keys.write_bytes(key_set(ed_key()))
    node = start_node(
        identity__game__issuer="game", identity__game__audience="board", identity__game__jwks_file=str(keys)
    )
    claims = {"iss": "game", "aud": "board", "sub": "p1", "exp": time.time() + 600, "preferred_username": "Grace"}
    async with client.exchange(node.url, ed_key().sign(claims)) as session:
        assert session.credentials.username == "Grace"
        assert (await session.submit("task_finish", {"difficulty": "hard", "timeSpent": 120})).newScore == 100
        await session.refresh()
    with pytest.raises(Refused) as raised:
        async with client.exchange(node.url, ed_key().sign(claims | {"exp": 1})):
            raise AssertionError("not logged in")
    assert (raised.value.status, raised.value.code) == (401, "UNAUTHORIZED")


@on_both_loops
async def test_a_session_from_beginning_to_end(client: ModuleType, start_node: StartNode) -> None:
    """Log in, act, see it on the board and as a personal event, renew the tokens, act with the new ones, and log
    out."""
    node = start_node()
    register(node)
    with pytest.raises(Refused) as raised:
        async with client.log_in(node.url, NAME, "another password"):
            raise AssertionError("not logged in")
    assert raised.value.status == httpx.codes.UNAUTHORIZED
    async with client.log_in(node.url, NAME, PASSWORD) as session, client.connect(node.url, session=session) as board:
        outcome = await board.submit("task_finish", {"difficulty": "hard", "timeSpent": 120}, action_id="first")
        assert (outcome.previousScore, outcome.newScore, outcome.newRank, outcome.replayed) == (0, 100, 1, False)
        await score_of(board, session.user, 100)
        with anyio.fail_after(10):
            personal = await anext(board.personal)
            assert (personal.newScore, personal.rank) == (100, 1)
        before = session.credentials
        await session.refresh()
        assert {session.credentials.accessToken, session.credentials.refreshToken}.isdisjoint(
            {before.accessToken, before.refreshToken}
        )
        assert board.state == "live"
        assert (await board.submit("task_finish", {"difficulty": "easy"})).newScore == 130
        with pytest.raises(Refused) as refused:
            await board.submit("task_finish", {"difficulty": "easy"}, action_id="first")
        assert (refused.value.status, refused.value.code) == (409, "DUPLICATE_ACTION")
        last = session.headers()
    async with client.open_http(node.url) as http:
        assert (await http.get("/api/v1/users/me", headers=last)).status_code == httpx.codes.UNAUTHORIZED


@on_both_loops
async def test_boards_outlive_their_node(
    client: ModuleType, start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node is shot and comes back while an action is under way: the action counts once, and boards of either mode are
    what it shows."""
    monkeypatch.setattr(backoff, "MAX_SECONDS", 0.5)
    node = start_node(limits__user_per_minute="0")
    async with client.open_http(node.url) as http:
        sessions = [client.Session(http, credentials) for credentials in provisioned(node, 3)]
        first, second, third = sessions
        async with (
            client.connect(node.url, session=first, mode="delta") as delta,
            client.connect(node.url, mode="full") as full,
        ):
            for session in sessions:
                await session.submit("task_finish", {"difficulty": "medium"})
            for board in (delta, full):
                await score_of(board, third.user, 50)
            node.kill()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(second.submit, "task_finish", {"difficulty": "hard"})
                with anyio.fail_after(10):
                    while (delta.state, full.state) != ("connecting", "connecting"):
                        await delta.changed()
                await anyio.to_thread.run_sync(node.start)
            for board in (delta, full):
                await score_of(board, second.user, 150)
            assert delta.entries == full.entries
            answer = await http.get("/api/v1/scores/leaderboard", headers=first.headers())
            shown = answer.json()["data"]["leaderboard"]
            assert [(row["userId"], row["score"], row["rank"]) for row in shown] == [
                (e.userId, e.score, e.rank) for e in full.entries
            ]


@on_both_loops
async def test_a_frozen_node_is_seen(client: ModuleType, start_node: StartNode) -> None:
    """A node that is stopped in its tracks says nothing: the board is silent within seconds, and live again when the
    node goes on."""
    node = start_node()
    async with client.connect(node.url) as board:
        node.signal(signal.SIGSTOP)
        try:
            with anyio.fail_after(
                HEARTBEAT_SECONDS + following.HEARTBEAT_GRACE_SECONDS + 3
            ):  # where the machine is busy
                while board.state != "silent":
                    await board.changed()
        finally:
            node.signal(signal.SIGCONT)
        with anyio.fail_after(10):
            while board.state != "live":
                await board.changed()


@on_both_loops
async def test_a_lost_answer_to_a_refresh_does_not_log_out(
    client: ModuleType, start_node: StartNode, database_url: str
) -> None:
    """The server spends the token, its answer is swallowed, and the client asks again after the longest of its waits:
    the session goes on.

    The machine's clock is an hour wrong besides: actions count nevertheless, the first after a log-in and the first
    without one.
    """
    node = start_node()
    register(node)
    waited = CLIENT_ANSWER_SECONDS + CLIENT_PAUSE_SECONDS
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        in_background(lambda: proxy_before(node.url)) as (proxy, _),
    ):
        monkeypatch.setattr(clock, "time", SimpleNamespace(time=lambda: time.time() - HOUR))
        async with client.log_in(proxy.url, NAME, PASSWORD) as session:
            before = session.credentials
            async with anyio.create_task_group() as tasks:
                proxy.fault = Fault.SWALLOW
                tasks.start_soon(session.refresh)
                with anyio.fail_after(10):
                    while not fetchval(database_url, "SELECT bool_or(spent_sha256 IS NOT NULL) FROM sessions"):
                        await anyio.sleep(0.02)
                execute(database_url, f"UPDATE sessions SET rotated_at = rotated_at - interval '{waited} seconds'")
                assert session.credentials is before
                proxy.restore()
            assert session.credentials.refreshToken not in {"", before.refreshToken}
            assert (await session.submit("task_finish", {"difficulty": "easy"})).newScore == 30
            await session.refresh()
            other = client.Session(session._http, session.credentials)
            assert not other.clock.offset
            assert (await other.submit("task_finish", {"difficulty": "hard"})).newScore == 130
            assert abs(other.clock.offset - HOUR) < 60


@on_both_loops
async def test_a_guest_comes_back_and_becomes_an_account(client: ModuleType, start_node: StartNode) -> None:
    """By the device key alone, with the points of before; then by the password alone. The session that was open goes
    on, on the live board too."""
    node = start_node(accounts__guests="true")
    key = client.new_device_key()
    async with client.log_in_as_guest(node.url, key, "Somebody") as guest:
        assert guest.credentials.username == "Somebody"
        first = await guest.submit("task_finish")
    async with client.log_in_as_guest(node.url, key) as guest, client.connect(node.url, session=guest) as board:
        user = guest.user
        second = await guest.submit("task_finish")
        assert second.newScore == first.newScore + second.pointsAwarded
        with pytest.raises(Refused) as refused:
            await guest.link("somebody@example.org", "short")
        assert [error["field"] for error in refused.value.errors] == ["password"]
        await guest.link("somebody@example.org", PASSWORD, NAME)
        assert (guest.user, guest.credentials.username) == (user, NAME)
        third = await guest.submit("task_finish")
        await score_of(board, user, third.newScore)
    with pytest.raises(Refused) as refused:
        async with client.log_in_as_guest(node.url, key):
            raise AssertionError("the key opens a session")
    assert refused.value.status == 401
    async with client.log_in(node.url, NAME, PASSWORD) as account:
        assert account.user == user
        with pytest.raises(Refused) as refused:
            await account.link("other@example.org", PASSWORD)
        assert refused.value.status == 409
