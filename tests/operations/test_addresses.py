"""E-mail addresses and names in several spellings, on a real PostgreSQL: one account, whichever way it was typed."""

import pytest

from scoreboard.domain.errors import Code, Refusal
from scoreboard.operations.sessions import LoggedIn
from scoreboard.storage.postgres import users
from tests.operations.people import PASSWORD, database_url, node

__all__ = ["database_url"]  # the module's own fixture

SPELLINGS = ("j@müller.example", "j@xn--mller-kva.example", "J@MÜLLER.example", "ｊ＠müller.example")


@pytest.mark.parametrize("registered", SPELLINGS)
async def test_an_address_logs_in_in_any_spelling(database_url: str, redis_url: str, registered: str) -> None:
    """As a browser encodes its domain, as people type it, in wide letters; nobody else can register with another
    spelling of it."""
    async with node(database_url, redis_url) as one:
        mine = await one.register("Jo Müller", email=registered)
        for spelling in SPELLINGS:
            outcome = await one.accounts.log_in(spelling, PASSWORD)
            assert isinstance(outcome, LoggedIn), spelling
            assert outcome.userId == mine.userId
            refused = await one.accounts.register("Somebody", spelling, PASSWORD, None)
            assert isinstance(refused, Refusal)
            assert (refused.code, [error.field for error in refused.errors]) == (Code.CONFLICT, ["email"])


@pytest.mark.parametrize("stored", SPELLINGS[:3])
async def test_an_address_from_before_todays_rule_stays_what_it_is(
    database_url: str, redis_url: str, stored: str
) -> None:
    """Its user logs in with the spelling of the row and with today's, is found by a query, and keeps the address from
    others."""
    async with node(database_url, redis_url) as one:
        mine = await one.register("Jo Müller", email="j@example.org")
        await one.stores.execute("UPDATE users SET email = $1", stored)
        for spelling in SPELLINGS:
            outcome = await one.accounts.log_in(spelling, PASSWORD)
            assert isinstance(outcome, LoggedIn), spelling
            assert outcome.userId == mine.userId
            assert isinstance(await one.accounts.register("Somebody", spelling, PASSWORD, None), Refusal)
        for query in ("müller.example", "xn--mller-kva.example", "@MÜLLER.example"):
            assert [user.username for user in await users.page(one.stores, None, query)] == ["Jo Müller"], query


async def test_an_address_in_wide_letters_from_before_todays_rule_logs_in(database_url: str, redis_url: str) -> None:
    """As it was typed then."""
    async with node(database_url, redis_url) as one:
        mine = await one.register("Jo Müller", email="j@example.org")
        await one.stores.execute("UPDATE users SET email = 'ｊ@example.org'")
        outcome = await one.accounts.log_in("Ｊ@example.org", PASSWORD)
        assert isinstance(outcome, LoggedIn)
        assert outcome.userId == mine.userId


async def test_two_accounts_that_share_a_mailbox_from_before_each_log_in(database_url: str, redis_url: str) -> None:
    """By the spelling of their own row."""
    async with node(database_url, redis_url) as one:
        ids = {}
        for name, email in zip(("First", "Second"), SPELLINGS[:2], strict=True):
            ids[email] = (await one.register(name, email=f"{name}@example.org")).userId
            await one.stores.execute("UPDATE users SET email = $2 WHERE username = $1", name, email)
        for email, user in ids.items():
            outcome = await one.accounts.log_in(email, PASSWORD)
            assert isinstance(outcome, LoggedIn)
            assert outcome.userId == user


async def test_a_name_in_wide_letters_is_the_same_name(database_url: str, redis_url: str) -> None:
    """It is stored in usual ones; of a user from before that rule both log in."""
    async with node(database_url, redis_url) as one:
        mine = await one.register("１２３ａｂｃ", email="a@example.org")
        assert mine.username == "123abc"
        for stored in ("123abc", "１２３abc"):
            await one.stores.execute("UPDATE users SET username = $1", stored)
            for typed in ("123ABC", "１２３ABC", "１２３ａｂｃ"):
                outcome = await one.accounts.log_in(typed, PASSWORD)
                assert isinstance(outcome, LoggedIn), (stored, typed)
                assert outcome.userId == mine.userId


async def test_a_name_with_piled_marks_from_before_todays_rule_logs_in(database_url: str, redis_url: str) -> None:
    """It can't be registered any more, and its user may keep it."""
    piled = "\u017a" + "\u0301" * 40 + "z"  # composed, as it was stored
    async with node(database_url, redis_url) as one:
        mine = await one.register("Zoe Z", email="z@example.org")
        assert isinstance(await one.accounts.register(piled, "y@example.org", PASSWORD, None), Refusal)
        await one.stores.execute("UPDATE users SET username = $1", piled)
        outcome = await one.accounts.log_in(piled, PASSWORD)
        assert isinstance(outcome, LoggedIn)
        assert outcome.userId == mine.userId
