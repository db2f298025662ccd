"""Names on a real PostgreSQL: names that look alike, resting names, limits of changes, and what PostgreSQL logs."""

from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID

import asyncpg
import pytest

from scoreboard.domain.errors import Code, Refusal
from scoreboard.operations.sessions import LoggedIn
from scoreboard.storage.postgres import skeletons, users
from scoreboard.storage.postgres.users import Profile
from tests.operations.naming import at_once, backfill, identity, refusal, rename_later
from tests.operations.people import PASSWORD, Node, database_url, node

__all__ = ["database_url"]  # the module's own fixture
TAKEN = (Code.CONFLICT, {"username"})


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
    """The other one is refused, and its name stays free."""
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
    """The second one is refused; there is no deadlock."""
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
