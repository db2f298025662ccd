"""Names on a real PostgreSQL: who gets one that looks like another, how long it rests, and what PostgreSQL's log says
of it."""

from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID

import asyncpg
import pytest
import trio

from scoreboard.domain.errors import Code, Refusal
from scoreboard.domain.skeletons import skeleton_of_first_rule
from scoreboard.domain.skeletons import skeletons as looks
from scoreboard.operations.authenticator import Identity
from scoreboard.operations.login_admission import Client
from scoreboard.operations.login_limits import EVERYWHERE_TIMES
from scoreboard.operations.sessions import LoggedIn
from scoreboard.security import passwords
from scoreboard.storage.connections.bridge import run_in_asyncio
from scoreboard.storage.postgres import skeletons, users
from scoreboard.storage.postgres.skeletons import Backfill
from scoreboard.storage.postgres.users import Profile
from tests.operations.people import PASSWORD, Node, database_url, node

__all__ = ["database_url"]  # the module's own fixture


def refusal(outcome: object) -> tuple[Code, set[str]]:
    assert isinstance(outcome, Refusal), outcome
    return outcome.code, {error.field for error in outcome.errors}


TAKEN = (Code.CONFLICT, {"username"})


async def identity(one: Node, name: str) -> Identity:
    found = one.sessions.authenticate(
        (await one.register(name, email=f"{name.encode().hex()}@example.org")).accessToken
    )
    assert found is not None
    return found


async def backfill(one: Node) -> int:
    async def run() -> int:
        conn = await one.stores.connect_aio()
        try:
            return await Backfill().run_aio(conn)
        finally:
            conn.terminate()

    return await run_in_asyncio(run)


async def rename_later(one: Node, user: UUID, name: str) -> object:
    """Once housekeeping holds a lock, or is through."""
    locks = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
    for _ in range(20):
        if await one.stores.fetchval(locks):
            break
    return await users.change(one.stores, user, name, None, set_avatar=False)


async def at_once(*calls: Callable[[], Awaitable[object]]) -> list[object]:
    outcomes: list[object] = []

    async def call(one: Callable[[], Awaitable[object]]) -> None:
        outcomes.append(await one())

    async with trio.open_nursery() as nursery:
        for one in calls:
            nursery.start_soon(call, one)
    return outcomes


async def test_a_name_that_looks_like_anothers_is_taken(database_url: str, redis_url: str) -> None:
    """For a registration and for a rename; one's own name may change into one that looks the same."""
    async with node(database_url, redis_url) as one:
        await one.register("PayPal")
        other = await identity(one, "Grace")
        for name in ("PayPaI", "РауРаl", "pay\u200bpal", "PAYPAL"):
            assert refusal(await one.accounts.register(name, "x@example.org", PASSWORD, None)) == TAKEN, name
            assert refusal(await one.accounts.change_profile(other, username=name)) == TAKEN, name
        for name in ("Graсe", "GRACE", "Grace"):
            assert isinstance(await one.accounts.change_profile(other, username=name), Profile)


async def test_of_two_registrations_at_once_one_wins(database_url: str, redis_url: str) -> None:
    """On two nodes, with names that look alike: exactly one user is made, again and again; the others are told that the
    name is taken."""
    async with node(database_url, redis_url) as one:
        two = Node(one.stores)
        for turn in range(10):

            def register(someone: Node, name: str, email: str) -> Callable[[], Awaitable[object]]:
                return lambda: someone.accounts.register(name, email, PASSWORD, None)

            names = [f"Bill {turn}", f"BiII {turn}", f"biLL {turn}", f"Вill {turn}"]
            outcomes = await at_once(
                *(
                    register((one, two)[place % 2], name, f"{turn}-{place}@example.org")
                    for place, name in enumerate(names)
                )
            )
            assert sum(isinstance(outcome, LoggedIn) for outcome in outcomes) == 1
            assert [refusal(outcome) for outcome in outcomes if not isinstance(outcome, LoggedIn)] == [TAKEN] * 3
        assert await one.stores.fetchval("SELECT count(*) FROM users") == 10


async def test_of_two_registrations_with_one_address_one_wins(database_url: str, redis_url: str) -> None:
    """The other one is told so, and its name stays free."""
    async with node(database_url, redis_url) as one:
        for turn in range(10):

            def register(name: str, email: str) -> Callable[[], Awaitable[object]]:
                return lambda: one.accounts.register(name, email, PASSWORD, None)

            outcomes = await at_once(
                *(register(f"{name}-{turn}", f"{turn}@Example.org") for name in ("Ada", "Grace", "Alan"))
            )
            assert sum(isinstance(outcome, LoggedIn) for outcome in outcomes) == 1
            assert [refusal(outcome) for outcome in outcomes if isinstance(outcome, Refusal)] == [
                (Code.CONFLICT, {"email"})
            ] * 2
        count = (
            "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM username_skeletons), "
            "(SELECT count(*) FROM credentials)"
        )
        assert tuple(await one.stores.fetchrow(count) or ()) == (10, 10, 10)


async def test_of_a_rename_and_a_registration_at_once_one_wins(database_url: str, redis_url: str) -> None:
    """Whoever comes second is refused; nobody waits for the other for ever."""
    async with node(database_url, redis_url) as one:
        user = await identity(one, "Ada")
        for turn in range(10):
            outcomes = await at_once(
                lambda turn=turn: one.accounts.change_profile(user, username=f"Bill {turn}"),  # type: ignore[misc]
                lambda turn=turn: one.accounts.register(f"BiII {turn}", f"{turn}@example.org", PASSWORD, None),  # type: ignore[misc]
            )
            assert [refusal(outcome) for outcome in outcomes if isinstance(outcome, Refusal)] == [TAKEN]


async def test_a_name_that_was_given_up_rests_for_thirty_days(database_url: str, redis_url: str) -> None:
    """For everybody but its last user, who may come back to it; then anybody may have it."""
    async with node(database_url, redis_url) as one:
        ada, grace = await identity(one, "Ada"), await identity(one, "Grace")
        assert isinstance(await one.accounts.change_profile(ada, username="Lovelace"), Profile)
        assert refusal(await one.accounts.change_profile(grace, username="Ada")) == TAKEN
        assert refusal(await one.accounts.register("Adа", "a2@example.org", PASSWORD, None)) == TAKEN
        assert isinstance(await one.accounts.change_profile(ada, username="Ada"), Profile)
        assert isinstance(await one.accounts.change_profile(ada, username="Lovelace"), Profile)
        await one.stores.execute("UPDATE username_skeletons SET freed_at = freed_at - interval '29 days 23 hours'")
        assert refusal(await one.accounts.change_profile(grace, username="Ada")) == TAKEN
        await one.stores.execute("UPDATE username_skeletons SET freed_at = freed_at - interval '1 hour'")
        assert isinstance(await one.accounts.change_profile(grace, username="Ada"), Profile)
        assert refusal(await one.accounts.change_profile(ada, username="Ada")) == TAKEN


async def test_the_name_of_a_deleted_user_rests_too(database_url: str, redis_url: str) -> None:
    """However the user was deleted; after thirty days a registration takes it, or housekeeping lets it go."""
    async with node(database_url, redis_url) as one:
        await one.register("Ada")
        await one.register("Grace")
        await one.stores.execute("DELETE FROM users")
        assert refusal(await one.accounts.register("ada", "ada@example.org", PASSWORD, None)) == TAKEN
        await one.stores.execute("UPDATE username_skeletons SET freed_at = freed_at - interval '30 days 1 second'")
        await one.register("ada")
        await backfill(one)
        assert [row["username"] for row in await one.stores.fetch("SELECT username FROM username_skeletons")] == ["ada"]


async def test_a_user_gives_up_ten_names_in_thirty_days(database_url: str, redis_url: str) -> None:
    """The next rename is refused, with the time until the first of the ten has rested; none of them is free for others
    before.

    What gives up no further name is allowed: the same look in another spelling, a name of one's own that rests, another
    picture.
    """
    names = [f"Name {letter}" for letter in "ABCDEFGHJKM"]
    async with node(database_url, redis_url) as one:
        ada, grace = await identity(one, names[0]), await identity(one, "Grace")
        for name in names[1:]:
            assert isinstance(await one.accounts.change_profile(ada, username=name), Profile)
        assert len(names) == users.MAX_RESTING_NAMES + 1
        await one.stores.execute(
            "UPDATE username_skeletons SET freed_at = freed_at - interval '29 days' WHERE username = $1", names[0]
        )
        refused = await one.accounts.change_profile(
            ada, username="Lovelace", avatar_url="https://example.org/a.png", set_avatar=True
        )
        assert isinstance(refused, Refusal)
        assert (refused.code, refused.layer) == (Code.RATE_LIMITED, "user")
        assert refused.retry_after is not None
        assert 86_000 < refused.retry_after <= 86_400
        for name in names[:-1]:
            assert refusal(await one.accounts.change_profile(grace, username=name)) == TAKEN
        for name in ("NAME M", names[3], names[5], names[10]):
            assert isinstance(await one.accounts.change_profile(ada, username=name), Profile)
        assert isinstance(
            await one.accounts.change_profile(ada, avatar_url="https://example.org/b.png", set_avatar=True), Profile
        )
        wait = (
            "UPDATE username_skeletons SET freed_at = freed_at - make_interval(secs => $1) WHERE freed_at IS NOT NULL"
        )
        await one.stores.execute(wait, float(refused.retry_after))
        assert isinstance(await one.accounts.change_profile(ada, username="Lovelace"), Profile)
        assert isinstance(await one.accounts.change_profile(ada, username="Byron"), Refusal)
        assert isinstance(await one.accounts.change_profile(grace, username=names[0]), Profile)


async def test_of_two_renames_of_one_user_at_once_both_count(database_url: str, redis_url: str) -> None:
    """In either order: the user holds the name that the last one gave, the others rest, and none is held without a user
    of that name."""
    held = (
        "SELECT user_id, array_agg(username::text) AS names FROM username_skeletons "
        "WHERE freed_at IS NULL GROUP BY user_id"
    )
    holds = f"SELECT username, names FROM users JOIN ({held}) ON user_id = id"
    async with node(database_url, redis_url) as one:
        for turn in range(20):
            user = await identity(one, f"Ada {turn}")
            names = [f"{name} {turn}" for name in ("Lovelace", "Byron", "King")]
            outcomes = await at_once(*(partial(one.accounts.change_profile, user, username=name) for name in names))
            assert all(isinstance(outcome, Profile) for outcome in outcomes)
        assert [tuple(row) for row in await one.stores.fetch(holds) if row["names"] != [row["username"]]] == []
        assert await one.stores.fetchval("SELECT count(*) FROM username_skeletons WHERE freed_at IS NOT NULL") == 20 * 3


async def test_a_rename_beside_housekeeping_is_no_deadlock(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of users without a row, again and again, to names that look the same, while housekeeping has their old names in
    its hands."""
    slowly = f"WITH locked AS MATERIALIZED ({skeletons.LOCK_SQL}) SELECT id, username, pg_sleep(0.01) FROM locked"
    monkeypatch.setattr(skeletons, "LOCK_SQL", slowly)
    insert = (
        "INSERT INTO users (username, email) "
        "SELECT name, name || '@example.org' FROM unnest($1::text[]) AS name RETURNING id"
    )
    holding = (
        "SELECT u.username FROM users AS u JOIN username_skeletons AS s ON (s.user_id, s.username) = (u.id, u.username)"
    )
    async with node(database_url, redis_url) as one:
        for turn in range(10):
            names = [f"Ada {turn} {number}" for number in range(8)]
            new_names = [name.replace("A", "\N{CYRILLIC CAPITAL LETTER A}") for name in names]
            ids: list[UUID] = [row["id"] for row in await one.stores.fetch(insert, names)]
            renames = [partial(rename_later, one, user, name) for user, name in zip(ids, new_names, strict=True)]
            outcomes = await at_once(partial(backfill, one), *renames)
            assert sum(isinstance(outcome, users.Changed) for outcome in outcomes) == len(names)
            await backfill(one)
            assert {row["username"] for row in await one.stores.fetch(holding)} >= set(new_names)


async def test_looks_that_others_hold_are_no_deadlock(database_url: str, redis_url: str) -> None:
    """Housekeeping finds users who look like a user's present and next name, while that user is renamed: both go on."""
    pause = """
        CREATE FUNCTION pause() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.1); RETURN NEW; END $$;
        CREATE TRIGGER pause BEFORE INSERT ON username_skeletons FOR EACH ROW
            WHEN (NEW.username LIKE 'B\u0443ron%') EXECUTE FUNCTION pause()"""
    insert = "INSERT INTO users (username, email) SELECT name, name || '@example.org' FROM unnest($1::text[]) AS name"
    async with node(database_url, redis_url) as one:
        await one.stores.execute(pause)
        for turn in range(5):
            ada = await identity(one, f"Ada {turn}")
            # in the order in which their looks are claimed
            await one.stores.execute(insert, [f"\u0410da {turn}", f"B\u0443ron {turn}"])
            outcomes = await at_once(partial(backfill, one), partial(rename_later, one, ada.user, f"Byron {turn}"))
            assert sum(isinstance(outcome, users.Changed) for outcome in outcomes) == 1


async def test_users_of_other_means_get_their_looks_by_and_by(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made, renamed and deleted by plain SQL: a round brings the looks up to date, the next finds nothing; two that
    collide both stay."""
    monkeypatch.setattr(skeletons, "PORTION_USERS", 2)
    insert = (
        "INSERT INTO users (username, email) "
        "SELECT name, name || '@example.org' FROM unnest($1::text[]) AS name RETURNING id"
    )
    names = ["Bill", "BiII", "Ada", "Grace", "Alan"]
    held = "SELECT username FROM username_skeletons WHERE freed_at IS NULL ORDER BY username"
    second_of_biii = 1  # which has two
    async with node(database_url, redis_url) as one:
        ids: list[UUID] = [row["id"] for row in await one.stores.fetch(insert, names)]
        assert await backfill(one) == 4 + second_of_biii
        assert await backfill(one) == 0
        assert await one.stores.fetchval("SELECT count(*) FROM users") == 5
        assert refusal(await one.accounts.register("biII", "b@example.org", PASSWORD, None)) == TAKEN
        await one.stores.execute("UPDATE users SET username = 'Ada L' WHERE id = $1", ids[2])
        assert await backfill(one) == 1
        assert refusal(await one.accounts.register("Ada", "a@example.org", PASSWORD, None)) == TAKEN
        await one.stores.execute(
            "UPDATE users SET username = CASE username WHEN 'Grace' THEN 'Alan2' ELSE 'Grace' END WHERE id = ANY($1)",
            ids[3:],
        )
        while await backfill(one):  # a name is free only once the look of its former user was seen to
            pass
        (holder,) = await one.stores.fetch("SELECT user_id FROM username_skeletons WHERE skeleton = 'bill'")
        await one.stores.execute("DELETE FROM users WHERE id = $1", holder["user_id"])
        assert await backfill(one) >= 1  # the other one has the name now
        assert await one.stores.fetchval("SELECT username FROM username_skeletons WHERE skeleton = 'bill'") in {
            "Bill",
            "BiII",
        }
        left = {"Ada L", "Alan2", "Grace"} | {
            row["username"] for row in await one.stores.fetch("SELECT username FROM users WHERE username LIKE 'B%'")
        }
        assert {row["username"] for row in await one.stores.fetch(held)} == left
        assert await backfill(one) == 0


# ---- more than one skeleton -----------------------------------------------------------------------------------------


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


# ---- names as people type them --------------------------------------------------------------------------------------


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


async def test_two_names_that_were_told_apart_before_each_log_in(database_url: str, redis_url: str) -> None:
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
            for number in range(EVERYWHERE_TIMES + 1)
        ]
        codes = [outcome.code for outcome in outcomes if isinstance(outcome, Refusal)]
        assert codes == [Code.UNAUTHORIZED] * EVERYWHERE_TIMES + [Code.RATE_LIMITED]


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


# ---- how often ------------------------------------------------------------------------------------------------------


async def test_profile_changes_are_limited_by_user_on_all_nodes(database_url: str, redis_url: str) -> None:
    """Ten at once, however many nodes are asked at the same time; then 429 with the time until the next, which is then
    taken."""
    async with node(database_url, redis_url, profile_changes_per_hour=20) as one:
        two = Node(one.stores, profile_changes_per_hour=20)
        user = await identity(one, "Ada")

        def change(someone: Node, number: int) -> Callable[[], Awaitable[object]]:
            return lambda: someone.accounts.change_profile(
                user, avatar_url=f"https://example.org/{number}.png", set_avatar=True
            )

        outcomes = await at_once(*(change((one, two)[number % 2], number) for number in range(24)))
        refused = [outcome for outcome in outcomes if isinstance(outcome, Refusal)]
        assert len(outcomes) - len(refused) == 10
        assert {(refusal.code, refusal.layer) for refusal in refused} == {(Code.RATE_LIMITED, "user")}
        waits = [refusal.retry_after for refusal in refused if refusal.retry_after]
        assert len(waits) == 14
        assert 170 <= min(waits) <= max(waits) <= 180
        assert len(one.changed) + len(two.changed) == 10
        await one.stores.execute(
            "UPDATE users SET profile_change_due = profile_change_due - make_interval(secs => $1)", float(max(waits))
        )
        assert isinstance(await change(one, 100)(), Profile)
        assert isinstance(await change(one, 101)(), Refusal)


async def test_what_changes_nothing_takes_no_place(database_url: str, redis_url: str) -> None:
    """The same name and picture again, a name that is taken: none of them counts."""
    async with node(database_url, redis_url, profile_changes_per_hour=1) as one:
        await one.register("Grace")
        user = await identity(one, "Ada")
        for _ in range(3):
            assert isinstance(await one.accounts.change_profile(user, username="Ada", set_avatar=True), Profile)
            assert refusal(await one.accounts.change_profile(user, username="grace")) == TAKEN
        assert isinstance(await one.accounts.change_profile(user, username="Lovelace"), Profile)
        limited = await one.accounts.change_profile(user, username="Byron")
        assert isinstance(limited, Refusal)
        assert (limited.code, limited.layer, limited.retry_after) == (Code.RATE_LIMITED, "user", 3600)
        assert isinstance(await one.accounts.change_profile(user, username="Lovelace"), Profile)


# ---- PostgreSQL's log -----------------------------------------------------------------------------------------------


async def test_what_is_taken_violates_no_index(database_url: str, redis_url: str) -> None:
    """PostgreSQL logs the key of a violated index, an e-mail address: taken names and addresses are no errors there."""
    async with node(database_url, redis_url) as one:
        await one.register("Ada")
        user = await identity(one, "Grace")

        async def rolled_back() -> int:
            await one.stores.fetchval("SELECT pg_stat_force_next_flush()")
            return int(
                await one.stores.fetchval(
                    "SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()"
                )
            )

        before = await rolled_back()
        with pytest.raises(asyncpg.UniqueViolationError):
            await one.stores.execute("INSERT INTO users (username, email) VALUES ('Other', 'ada@example.org')")
        assert await rolled_back() == before + 1  # an error is seen here
        for name, email in (("Ada", "ada@example.org"), ("aDA", "new@example.org"), ("Other", "ADA@example.org")):
            assert isinstance(await one.accounts.register(name, email, PASSWORD, None), Refusal)
            await one.accounts.change_profile(user, username=name if name != "Other" else "ADA")
        assert await rolled_back() == before + 1


async def test_postgresql_logs_no_parameters(database_url: str, redis_url: str) -> None:
    """Neither of statements nor of errors: they have e-mail addresses and hashes."""
    async with node(database_url, redis_url) as one:
        for setting, value in {
            "log_statement": "none",
            "log_min_duration_statement": "-1",
            "log_min_duration_sample": "-1",
            "log_parameter_max_length_on_error": "0",
            "log_transaction_sample_rate": "0",
        }.items():
            assert await one.stores.fetchval("SELECT current_setting($1)", setting) == value
