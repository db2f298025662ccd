"""Another password: who may set it, which sessions it ends, and what happens at the same moment. On a real
PostgreSQL."""

from contextvars import copy_context
from functools import partial

import pytest
import trio

from scoreboard.domain.errors import Code, Refusal, StorageUnavailable
from scoreboard.operations.authenticator import Identity
from scoreboard.operations.hashing import MAX_HASHING, MAX_WAITING
from scoreboard.operations.log_in import INVALID_CREDENTIALS
from scoreboard.operations.login_admission import THIS_PROCESS, TOO_BUSY, Client
from scoreboard.operations.sessions import SESSION_ENDED, LoggedIn
from scoreboard.security import passwords
from scoreboard.storage.postgres import credentials
from tests.operations.people import CHEAP, PASSWORD, Node, database_url, node

__all__ = ["database_url"]  # the module's own fixture

NEW = "battery staple correct"


def identity(one: Node, given: LoggedIn) -> Identity:
    found = one.sessions.authenticate(given.accessToken)
    assert found is not None
    return found


def told(outcome: object) -> tuple[Code, set[str]]:
    assert isinstance(outcome, Refusal), outcome
    return outcome.code, {error.field for error in outcome.errors}


async def log_in(one: Node, password: str = PASSWORD, client: Client = THIS_PROCESS) -> LoggedIn:
    outcome = await one.accounts.log_in("Ada", password, client)
    assert isinstance(outcome, LoggedIn), outcome
    return outcome


async def test_a_new_password_ends_all_other_sessions(database_url: str, redis_url: str) -> None:
    """Their tokens and refresh tokens are refused at once, other nodes are told; the session that changed it goes on;
    others' stay."""
    async with node(database_url, redis_url) as one:
        grace = await one.register("Grace")
        first, mine, third = await one.register(), await log_in(one), await log_in(one)
        me = identity(one, mine)
        ended = {identity(one, given).sid for given in (first, third)}
        assert await one.accounts.change_password(me, PASSWORD, NEW) is None
        assert set(one.revoked) == ended
        for given in (first, third):
            assert one.sessions.authenticate(given.accessToken) is None
            assert await one.accounts.refresh_session(given.refreshToken) == SESSION_ENDED
        for given in (mine, grace):
            assert one.sessions.authenticate(given.accessToken) is not None
            assert isinstance(await one.accounts.refresh_session(given.refreshToken), LoggedIn)
        assert await one.accounts.log_in("Ada", PASSWORD) == INVALID_CREDENTIALS
        await log_in(one, NEW)


async def test_a_wrong_current_password_changes_nothing(database_url: str, redis_url: str) -> None:
    """400 names the field; of a user without a password, too; of one who is gone the token is worth nothing."""
    async with node(database_url, redis_url) as one:
        me = identity(one, await one.register())
        for wrong in ("", NEW, PASSWORD + "!", PASSWORD.upper(), "x" * 5000):
            assert told(await one.accounts.change_password(me, wrong, NEW)) == (
                Code.INVALID_REQUEST,
                {"currentPassword"},
            )
        await log_in(one)
        await one.stores.execute("DELETE FROM credentials")
        assert told(await one.accounts.change_password(me, PASSWORD, NEW)) == (
            Code.INVALID_REQUEST,
            {"currentPassword"},
        )
        await one.stores.execute("DELETE FROM users")
        assert told(await one.accounts.change_password(me, PASSWORD, NEW)) == (Code.UNAUTHORIZED, set())


@pytest.mark.parametrize(
    "new", ["short", "x" * 1025, "1234567890", "LovelaceAda", "lovelace1815", "LOVELACE1815@example.org"]
)
async def test_the_new_password_obeys_the_rules_of_registration(database_url: str, redis_url: str, new: str) -> None:
    """Too short, too long, much used, one's own name or address: 400 names the field, and no try is counted."""
    async with node(database_url, redis_url, login_per_minute=1) as one:
        me = identity(one, await one.register("LovelaceAda", email="lovelace1815@example.org"))
        for _ in range(3):
            refused = await one.accounts.change_password(me, PASSWORD, new, Client("192.0.2.1"))
            assert told(refused) == (Code.INVALID_REQUEST, {"newPassword"})


async def test_wrong_current_passwords_count_as_failed_log_ins(database_url: str, redis_url: str) -> None:
    """Of the account and the address; the right one is not counted as a failure."""
    async with node(database_url, redis_url, login_per_minute=2) as one:
        me = identity(one, await one.register())
        for turn in range(4):
            old, new = (PASSWORD, NEW) if turn % 2 == 0 else (NEW, PASSWORD)
            assert await one.accounts.change_password(me, old, new) is None
        for _ in range(2):
            assert (
                told(await one.accounts.change_password(me, NEW, "any other one", Client("192.0.2.1")))[0]
                is Code.INVALID_REQUEST
            )
        for address in ("192.0.2.1", ""):
            client = Client(address)
            for refused in (
                await one.accounts.change_password(me, PASSWORD, NEW, client),
                await one.accounts.log_in("Ada", PASSWORD, client),
            ):
                if address:
                    assert isinstance(refused, Refusal)
                    assert (refused.code, refused.layer) == (Code.RATE_LIMITED, "login")
                    assert refused.retry_after
        for number in range(40):
            await one.accounts.log_in("Ada", "wrong password", Client(f"203.0.{number}.1"))
        refused = await one.accounts.change_password(me, PASSWORD, NEW, Client("198.51.100.1"))
        assert isinstance(refused, Refusal)
        assert (refused.code, refused.layer) == (Code.RATE_LIMITED, "login")


async def test_a_full_hashing_queue_refuses_a_change(database_url: str, redis_url: str) -> None:
    """503, and nothing of the try is counted."""
    async with node(database_url, redis_url, login_per_minute=1) as one:
        me = identity(one, await one.register())
        places = [
            place for _ in range(MAX_HASHING + MAX_WAITING) if (place := one.accounts.admission.hashing.reserve())
        ]
        for _ in range(3):
            assert await one.accounts.change_password(me, PASSWORD, NEW, Client("192.0.2.1")) == TOO_BUSY
        for place in places:
            one.accounts.admission.hashing.release(place)
        assert await one.accounts.change_password(me, PASSWORD, NEW, Client("192.0.2.1")) is None
        assert one.accounts.admission.hashing.in_use == 0


async def test_of_two_changes_at_once_one_wins(database_url: str, redis_url: str) -> None:
    """From two sessions: the other one is told that its current password is wrong, and its session has ended."""
    async with node(database_url, redis_url) as one:
        for turn in range(5):
            given = [
                await one.register(f"Ada {turn}", email=f"{turn}@example.org"),
                await one.accounts.log_in(f"Ada {turn}", PASSWORD),
            ]
            outcomes: dict[int, object] = {}

            async def change(number: int, me: Identity, outcomes: dict[int, object] = outcomes) -> None:
                outcomes[number] = await one.accounts.change_password(me, PASSWORD, f"{NEW} {number}")

            async with trio.open_nursery() as nursery:
                for number, each in enumerate(given):
                    assert isinstance(each, LoggedIn)
                    nursery.start_soon(change, number, identity(one, each))
            (winner,) = [number for number, outcome in outcomes.items() if outcome is None]
            assert told(outcomes[1 - winner]) == (Code.INVALID_REQUEST, {"currentPassword"})
            assert isinstance(await one.accounts.log_in(f"Ada {turn}", f"{NEW} {winner}"), LoggedIn)
            live = [
                isinstance(each, LoggedIn) and one.sessions.authenticate(each.accessToken) is not None for each in given
            ]
            assert live == [winner == 0, winner == 1]


async def test_a_log_in_with_the_old_password_leaves_no_session(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has compared the old hash already when the password is changed: it is refused."""
    async with node(database_url, redis_url) as one:
        me = identity(one, await one.register())
        verify, token = passwords.verify, trio.lowlevel.current_trio_token()
        context = copy_context()  # names the stores' loop; hashing's threads know neither
        changed = False

        def verify_and_change(stored: str | None, password: str) -> bool:
            nonlocal changed
            right = verify(stored, password)
            if not changed:
                changed = True
                assert stored is not None
                change = partial(credentials.change, one.stores, me.user, stored, CHEAP.hash(NEW), me.sid)
                context.run(partial(trio.from_thread.run, change, trio_token=token))
            return right

        monkeypatch.setattr(passwords, "verify", verify_and_change)
        assert await one.accounts.log_in("Ada", PASSWORD) == INVALID_CREDENTIALS
        assert await one.stores.fetchval("SELECT count(*) FROM sessions WHERE revoked_at IS NULL") == 1


async def test_a_hash_that_is_made_anew_at_the_same_moment_refuses_nobody(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two log-ins with the right password find an outdated hash: both are let in."""
    async with node(database_url, redis_url, hasher=passwords._HASHER) as one:
        await one.register()
        await one.stores.execute("UPDATE credentials SET password_hash = $1", CHEAP.hash(PASSWORD))
        given: list[object] = []

        async def enter() -> None:
            given.append(await one.accounts.log_in("Ada", PASSWORD))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(enter)
            nursery.start_soon(enter)
        assert [type(each) for each in given] == [LoggedIn, LoggedIn]


async def test_when_redis_is_away_the_sessions_end_all_the_same(database_url: str, redis_url: str) -> None:
    """Other nodes read from PostgreSQL which ones; the change has succeeded."""
    async with node(database_url, redis_url) as one:

        async def away(_: object) -> None:
            raise StorageUnavailable("redis", "gone")

        first, mine = await one.register(), await log_in(one)
        one.publish_revoked = away  # type: ignore[assignment, method-assign]
        assert await one.accounts.change_password(identity(one, mine), PASSWORD, NEW) is None
        assert one.sessions.authenticate(first.accessToken) is None
        assert await one.stores.fetchval("SELECT count(*) FROM sessions WHERE revoked_at IS NOT NULL") == 1
