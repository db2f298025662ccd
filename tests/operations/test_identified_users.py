"""Users whom something else than a password identifies: found or created, and sessions for them."""

from uuid import UUID

import trio

from scoreboard.domain.audit import OPERATOR
from scoreboard.domain.errors import Refusal
from scoreboard.domain.identities import ExternalIdentity
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.operations.identified_users import find_or_create
from scoreboard.operations.sessions import LoggedIn
from scoreboard.storage.postgres import users
from scoreboard.storage.postgres.identities import IdentifiedUser
from tests.operations.people import Node, database_url, node

__all__ = ["database_url"]  # the module's own fixture

EVE = ExternalIdentity("game", "eve")


async def found_or_created(one: Node, identity: ExternalIdentity, wanted: str | None = None) -> IdentifiedUser:
    outcome = await find_or_create(one.stores, identity, wanted)
    assert not isinstance(outcome, Refusal), outcome
    return outcome


async def test_a_wanted_name_that_is_taken_gets_a_number(database_url: str, redis_url: str) -> None:
    """Whoever has it keeps it; a second log-in is the same user with the same name."""
    async with node(database_url, redis_url) as one:
        ada = await one.register("Ada")
        made = await found_or_created(one, EVE, "ADA")
        assert made.username.startswith("ADA-")
        assert str(made.user) != ada.userId
        assert await found_or_created(one, EVE, "Somebody else") == IdentifiedUser(made.user, made.username)


async def test_many_players_without_a_name_get_one_each(database_url: str, redis_url: str) -> None:
    async with node(database_url, redis_url) as one:
        made = [await found_or_created(one, ExternalIdentity("device", str(number))) for number in range(20)]
        assert len({each.username for each in made}) == 20
        assert all(each.username.startswith("Player-") for each in made)


async def test_a_session_is_opened_without_a_password(database_url: str, redis_url: str) -> None:
    """Its tokens are worth as much as those of a password, and the profile has no address."""
    async with node(database_url, redis_url) as one:
        made = await found_or_created(one, EVE, "Eve")
        opened = await one.accounts.sessions.open_identified(made.user, made.username, "Firefox on Linux")
        assert isinstance(opened, LoggedIn)
        identity = one.sessions.authenticate(opened.accessToken)
        assert identity is not None
        profile = await one.accounts.profile(identity)
        assert not isinstance(profile, Refusal)
        assert profile.email is None
        assert not isinstance(await one.accounts.refresh_session(opened.refreshToken), Refusal)
        assert await one.stores.fetchval("SELECT client FROM sessions") == "Firefox on Linux"


async def test_nobody_logs_in_with_a_password_as_a_user_without_one(database_url: str, redis_url: str) -> None:
    async with node(database_url, redis_url) as one:
        await found_or_created(one, EVE, "Eve")
        for password in ("", "None", "null", "correct horse battery"):
            assert isinstance(await one.accounts.log_in("Eve", password), Refusal)


async def test_no_session_opens_for_a_user_who_is_deleted_at_that_moment(database_url: str, redis_url: str) -> None:
    """The opening waits for the deletion, which has not committed yet, and then finds nobody."""
    async with node(database_url, redis_url) as one:
        made = await found_or_created(one, EVE, "Eve")
        outcomes: list[LoggedIn | None] = []

        async def open_session() -> None:
            outcomes.append(await one.accounts.sessions.open_identified(made.user, made.username))

        conn = await run_in_asyncio(one.stores.connect_aio)
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                await run_in_asyncio(conn.execute, "BEGIN")
                await run_in_asyncio(conn.execute, "DELETE FROM users WHERE id = $1", made.user)
                nursery.start_soon(open_session)
                while not await one.stores.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                    await trio.lowlevel.checkpoint()
                assert not outcomes
                await run_in_asyncio(conn.execute, "COMMIT")
        assert outcomes == [None]
        assert await one.stores.fetchval("SELECT count(*) FROM sessions") == 0
        conn.terminate()


async def test_no_session_opens_for_a_user_who_is_gone(database_url: str, redis_url: str) -> None:
    async with node(database_url, redis_url) as one:
        made = await found_or_created(one, EVE, "Eve")
        await users.delete(one.stores, made.user, OPERATOR)
        assert await one.accounts.sessions.open_identified(made.user, made.username) is None
        assert await one.accounts.sessions.open_identified(UUID(int=7), "Nobody") is None
