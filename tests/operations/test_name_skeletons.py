"""Names with more than one skeleton, and skeletons of earlier versions, on a real PostgreSQL."""

from collections.abc import Awaitable, Callable
from functools import partial

from scoreboard.domain.errors import Code, Refusal
from scoreboard.domain.skeletons import skeleton_of_first_rule
from scoreboard.domain.skeletons import skeletons as looks
from scoreboard.operations.sessions import LoggedIn
from scoreboard.storage.postgres.users import Profile
from tests.operations.naming import at_once, backfill, identity, refusal
from tests.operations.people import PASSWORD, Node, database_url, node

__all__ = ["database_url"]  # the module's own fixture
TAKEN = (Code.CONFLICT, {"username"})


async def test_a_small_i_keeps_no_l_from_anybody(database_url: str, redis_url: str) -> None:
    """ "Mail" and "Mall" are two users; "Ian" and "lan" can't be, whoever comes first, nor "Ian" and "ian"."""
    async with node(database_url, redis_url) as one:
        for name in ("Mail", "Mall", "Ian", "Lily"):
            await identity(one, name)
        for name in ("lan", "ian", "IAN", "MAlL", "Lliy", "LiIy"):
            outcome = await one.accounts.register(name, f"{name}2@example.org", PASSWORD, None)
            assert isinstance(outcome, LoggedIn) if name == "Lliy" else refusal(outcome) == TAKEN, name
        await one.stores.execute("DELETE FROM users")
        await one.stores.execute("DELETE FROM username_skeletons")
        await identity(one, "lan")
        assert refusal(await one.accounts.register("Ian", "i@example.org", PASSWORD, None)) == TAKEN
        await identity(one, "ian")
        assert await one.stores.fetchval("SELECT count(*) FROM username_skeletons") == 2


async def test_names_that_differ_in_case_alone_are_one(database_url: str, redis_url: str) -> None:
    """The final sigma, the sharp s: the second is taken, and each spelling logs in to the first."""
    sisyphus = (
        "\u03a3\u038a\u03a3\u03a5\u03a6\u039f\u03a3",
        "\u03c3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2",
        "\u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2",
    )
    street = "STRASSE", "stra\u00dfe", "STRA\u1e9eE"
    async with node(database_url, redis_url) as one:
        for number, spellings in enumerate((sisyphus, street)):
            mine = await one.register(spellings[0], email=f"{number}@example.org")
            for spelling in spellings:
                assert refusal(await one.accounts.register(spelling, "other@example.org", PASSWORD, None)) == TAKEN
                outcome = await one.accounts.log_in(spelling, PASSWORD)
                assert isinstance(outcome, LoggedIn)
                assert outcome.userId == mine.userId
        for only_alike in ("strass\u0435", "5trasse"):  # a Cyrillic letter: nobody's name
            assert isinstance(await one.accounts.log_in(only_alike, PASSWORD), Refusal)


async def test_names_with_some_looks_in_common_exclude_each_other(database_url: str, redis_url: str) -> None:
    """At once, on two nodes, by registrations and renames: one wins, all of its looks are its, nothing of the others is
    left."""
    async with node(database_url, redis_url) as one:
        two = Node(one.stores)
        user = await identity(one, "Grace")
        for turn in range(10):

            def register(someone: Node, name: str, place: int, turn: int = turn) -> Callable[[], Awaitable[object]]:
                return lambda: someone.accounts.register(
                    f"{name} {turn}", f"{turn}-{place}@example.org", PASSWORD, None
                )

            names = ("IIya", "IlIya", "\u0406lya", "Iiya") if turn % 2 else ("Ian", "IAN", "\u0406an", "iAN")
            calls = [register((one, two)[place % 2], name, place) for place, name in enumerate(names)]
            rename = partial(one.accounts.change_profile, user, username=f"{names[0]} {turn}")
            outcomes = await at_once(*calls, rename)
            assert any(not isinstance(outcome, Refusal) for outcome in outcomes)
            for outcome in outcomes:
                assert not isinstance(outcome, Refusal) or refusal(outcome) == TAKEN
        whole = """
            SELECT u.username, array_agg(s.skeleton::text ORDER BY s.skeleton) AS held
            FROM users AS u JOIN username_skeletons AS s ON s.user_id = u.id AND s.freed_at IS NULL
            GROUP BY u.username"""
        rows = await one.stores.fetch(whole)
        assert [row["username"] for row in rows if tuple(row["held"]) != looks(row["username"])] == []
        assert len(rows) == await one.stores.fetchval("SELECT count(*) FROM users")
        assert await one.stores.fetchval("SELECT count(*) FROM username_skeletons WHERE user_id IS NULL") == 0
        assert await backfill(one) == 0


async def first_rule(one: Node) -> None:
    """The rows as the version before wrote them, of names that rest too."""
    rows = await one.stores.fetch("SELECT DISTINCT user_id, username, freed_at FROM username_skeletons")
    await one.stores.execute("DELETE FROM username_skeletons")
    for row in rows:
        insert = (
            "INSERT INTO username_skeletons (skeleton, user_id, username, freed_at) "
            "VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING"
        )
        await one.stores.execute(
            insert, skeleton_of_first_rule(row["username"]), row["user_id"], row["username"], row["freed_at"]
        )


async def test_keys_of_the_first_rule_keep_names_until_they_are_replaced(database_url: str, redis_url: str) -> None:
    """No name is free for an imitation in between; afterwards what that rule alone took for one is possible, nothing
    rests for it."""
    async with node(database_url, redis_url) as one:
        bill, mail = await identity(one, "Bill"), await identity(one, "Mail")
        other, resting = await identity(one, "Grace"), await identity(one, "Ian")
        assert isinstance(await one.accounts.change_profile(resting, username="Lovelace"), Profile)
        await first_rule(one)
        for name in ("\u0412iII", "\u0412ill", "BILL", "bill", "Mall", "lan", "IAN", "\u0406an"):
            assert refusal(await one.accounts.register(name, "x@example.org", PASSWORD, None)) == TAKEN, name
            assert refusal(await one.accounts.change_profile(other, username=name)) == TAKEN, name
        # claims its rows by today's rule
        assert isinstance(await one.accounts.change_profile(mail, username="MAIL"), Profile)
        assert isinstance(await one.accounts.change_profile(mail, username="Mail"), Profile)
        await first_rule(one)
        assert await backfill(one) == 4
        assert await backfill(one) == 0
        for name in ("\u0412iII", "\u0412ill", "BILL", "bill", "lan", "IAN", "\u0406an"):
            assert refusal(await one.accounts.register(name, "x@example.org", PASSWORD, None)) == TAKEN, name
        await one.stores.execute("DELETE FROM username_skeletons WHERE username = 'MAIL'")  # it has been given up above
        await one.register("Mall")
        assert (
            await one.stores.fetchval(
                "SELECT count(*) FROM username_skeletons WHERE freed_at IS NULL AND skeleton_count = 0"
            )
            == 0
        )
        # its last user may come back
        assert isinstance(await one.accounts.change_profile(resting, username="Ian"), Profile)
        assert isinstance(await one.accounts.change_profile(bill, username="BILL"), Profile)
        assert await backfill(one) == 0


async def test_a_node_of_the_version_before_may_write_beside(database_url: str, redis_url: str) -> None:
    """What it registers and renames gets today's skeletons from housekeeping, also where it has changed one row of
    several."""
    async with node(database_url, redis_url) as one:
        ian = await identity(one, "Ian")
        insert = "INSERT INTO users (username, email) VALUES ('Bill', 'b@example.org') RETURNING id"
        bill = await one.stores.fetchval(insert)
        await one.stores.execute(
            "INSERT INTO username_skeletons (skeleton, user_id, username) VALUES ('blll', $1, 'Bill')", bill
        )
        await one.stores.execute("UPDATE users SET username = 'IAN' WHERE id = $1", ian.user)
        await one.stores.execute("UPDATE username_skeletons SET username = 'IAN' WHERE skeleton = 'lan'")
        await one.stores.execute("UPDATE username_skeletons SET freed_at = now() WHERE skeleton = 'ian'")
        assert await backfill(one) == 2
        assert await backfill(one) == 0
        rows = await one.stores.fetch(
            "SELECT skeleton, username, skeleton_count, freed_at FROM username_skeletons ORDER BY skeleton"
        )
        assert [tuple(row) for row in rows] == [
            ("bill", "Bill", 1, None),
            ("ian", "IAN", 2, None),
            ("lan", "IAN", 2, None),
        ]


async def test_ten_names_given_up_are_ten_however_many_looks_they_have(database_url: str, redis_url: str) -> None:
    """A name with two skeletons counts once; an operator may rename all the same."""
    async with node(database_url, redis_url) as one:
        user = await identity(one, "Ada")
        for number in range(10):
            assert isinstance(
                await one.accounts.change_profile(user, username=f"Ian {chr(ord('a') + number)}"), Profile
            )
        refused = await one.accounts.change_profile(user, username="Ivan")
        assert isinstance(refused, Refusal)
        assert (refused.code, refused.layer) == (Code.RATE_LIMITED, "user")
        mine = await one.accounts.profile(user)
        assert isinstance(mine, Profile)
        assert isinstance(await one.accounts.rename(mine, "Ivan"), Profile)
