"""Names as people type them: what a log-in accepts, on a real PostgreSQL."""

import pytest

from scoreboard.domain.errors import Code, Refusal
from scoreboard.operations.login_admission import Client
from scoreboard.operations.login_limits import EVERYWHERE_LIMIT_FACTOR
from scoreboard.operations.sessions import LoggedIn
from scoreboard.security import passwords
from scoreboard.storage.postgres.users import Profile
from tests.operations.naming import backfill, identity, refusal
from tests.operations.people import PASSWORD, database_url, node

__all__ = ["database_url"]  # the module's own fixture
TAKEN = (Code.CONFLICT, {"username"})


async def test_a_log_in_takes_what_registration_took(database_url: str, redis_url: str) -> None:
    """Spaces round a name or an address, composed or not, doubled, invisible, in any case: registered, renamed and
    logged in alike."""
    typed = (
        "Zo\u00eb M",
        "Zoe\u0308 M",
        " zo\u00cb m ",
        "\u00a0Zo\u00eb\u2003\u00a0M\t",
        "Zo\u00ad\u00eb M\u200b",
        "\ufeffZO\u00cb M\n",
    )
    addresses = (
        "Zoe@Example.org",
        " ZOE@EXAMPLE.ORG ",
        "zoe@example.org\n",
        "\u00a0zoe@example.org",
        "\ufeffzoe@example.org\u200b",
    )
    async with node(database_url, redis_url) as one:
        for number, name in enumerate(typed):
            await one.stores.execute("DELETE FROM users")
            await one.stores.execute("DELETE FROM username_skeletons")
            mine = await one.register(name, email=addresses[number % len(addresses)])
            for other in (*typed, *addresses):
                outcome = await one.accounts.log_in(other, PASSWORD)
                assert isinstance(outcome, LoggedIn), ascii(other)
                assert outcome.userId == mine.userId
            user = one.sessions.authenticate(mine.accessToken)
            assert user is not None
            changed = await one.accounts.change_profile(user, username=name)
            assert isinstance(changed, Profile)
            assert changed.username == mine.username
        grace = await identity(one, "Grace")
        for name in typed:
            assert refusal(await one.accounts.change_profile(grace, username=name)) == TAKEN


@pytest.mark.parametrize(
    "name", ["Ada\u00a0L", "Ada  L", "\u3164\u3164\u3164", "A\u200bda", "A\u2800da", " Ada ", "Ad\ue000a", "\u202eAda"]
)
async def test_names_from_before_todays_rules_stay(database_url: str, redis_url: str, name: str) -> None:
    """They log in as they were, may be sent with a new picture, and their looks are taken; nobody else gets one."""
    async with node(database_url, redis_url) as one:
        mine = await one.register("Lovelace")
        user = one.sessions.authenticate(mine.accessToken)
        assert user is not None
        await one.stores.execute("UPDATE users SET username = $1", name)
        await backfill(one)
        outcome = await one.accounts.log_in(name, PASSWORD)
        assert isinstance(outcome, LoggedIn)
        assert (outcome.userId, outcome.username) == (mine.userId, name)
        changed = await one.accounts.change_profile(
            user, username=name, avatar_url="https://example.org/a.png", set_avatar=True
        )
        assert isinstance(changed, Profile)
        assert changed.username == name
        assert isinstance(await one.accounts.register(name, "x@example.org", PASSWORD, None), Refusal)


async def test_two_names_that_were_different_by_an_older_rule_each_log_in(database_url: str, redis_url: str) -> None:
    """A user is found by the name as typed first."""
    async with node(database_url, redis_url) as one:
        for number in range(2):
            await one.register(f"Ada {number}", email=f"{number}@example.org")
        old = ("Ada\u00a0L", "Ada L")
        for number, name in enumerate(old):
            await one.stores.execute("UPDATE users SET username = $1 WHERE email = $2", name, f"{number}@example.org")
        for name in old:
            outcome = await one.accounts.log_in(name, PASSWORD)
            assert isinstance(outcome, LoggedIn)
            assert outcome.username == name


@pytest.mark.parametrize("name", ["Ada", "Nobody"])
async def test_spellings_share_their_wrong_passwords(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Of an account and of a name that nobody has: so the limits do not tell which names there are."""
    monkeypatch.setattr(passwords, "verify", lambda *_: False)
    spellings = (name, f" {name}", f"{name}\u200b", name.upper(), f"\u00a0{name} ")
    async with node(database_url, redis_url, login_per_minute=1) as one:
        await one.register("Ada")
        outcomes = [
            await one.accounts.log_in(spellings[number % len(spellings)], "wrong password", Client(f"192.0.{number}.1"))
            for number in range(EVERYWHERE_LIMIT_FACTOR + 1)
        ]
        codes = [outcome.code for outcome in outcomes if isinstance(outcome, Refusal)]
        assert codes == [Code.UNAUTHORIZED] * EVERYWHERE_LIMIT_FACTOR + [Code.RATE_LIMITED]


@pytest.mark.parametrize(
    "name", ["user-1a2b3c4d", "USER-00000000", "user‐1a2b3c4d", "user-lO2b3c4d", "028e1b3b-469e-4c98-9ca1-1ae0b5657e30"]
)
async def test_stand_ins_and_ids_are_no_names(database_url: str, redis_url: str, name: str) -> None:
    """A name that a board shows for somebody whose name no store tells, or that can be taken for a user's id, is
    refused."""
    async with node(database_url, redis_url) as one:
        ada = await identity(one, "Ada")
        assert refusal(await one.accounts.register(name, "x@example.org", PASSWORD, None)) == (
            Code.INVALID_REQUEST,
            {"username"},
        )
        assert refusal(await one.accounts.change_profile(ada, username=name)) == (Code.INVALID_REQUEST, {"username"})
