"""Names and pictures: filled by readers, written through by changes, five minutes in Redis."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from scoreboard.domain.boards import LEADERBOARD, TOP_SIZE
from scoreboard.domain.ledger_rows import LedgerRow, SequenceRange
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.namespace import SPECIFIED
from scoreboard.drivers.postgres_connector import PostgresConnector
from scoreboard.drivers.postgres_pool import PostgresPool
from scoreboard.drivers.stores import Stores, open_stores
from scoreboard.live.frame_set import next_frame_set
from scoreboard.storage import board_cache as board_module
from scoreboard.storage import profiles as module
from scoreboard.storage.bus import Update, decode
from scoreboard.storage.profiles import Profiles, placeholder
from tests.conftest import OwnValkey
from tests.storage.scored_board import NAMES, ScoredBoard, counted_commands
from tests.storage.seeds import UPDATES


@pytest.fixture
async def scored(database_url: str, redis_url: str) -> AsyncIterator[ScoredBoard]:
    async with open_stores(database_url, redis_url) as stores:
        scored = ScoredBoard(stores)
        await scored.open_board()
        yield scored


async def rename(scored: ScoredBoard, profiles: Profiles, user: UUID, name: str, avatar_url: str | None = None) -> None:
    """As operations.accounts does: PostgreSQL first, then every board."""
    await scored.stores.execute("UPDATE users SET username = $2, avatar_url = $3 WHERE id = $1", user, name, avatar_url)
    await profiles.write_through(user, name, avatar_url)


async def hash_of(scored: ScoredBoard, user: UUID) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = await scored.stores.command("HGETALL", SPECIFIED.profile(user))
    return fields


async def test_readers_fill_the_hash_for_five_minutes(scored: ScoredBoard) -> None:
    """The first reader asks PostgreSQL and leaves the profile in Redis with its time to live; the second node asks
    Redis."""
    ann = await scored.user("ann", "https://example.org/a.png")
    await scored.score(ann, 10)
    await scored.reader().read()
    assert await hash_of(scored, ann) == {b"username": b"ann", b"avatarUrl": b"https://example.org/a.png"}
    assert 0 < await scored.stores.command("TTL", SPECIFIED.profile(ann)) <= module.PROFILE_TTL_SECONDS
    await scored.stores.execute("UPDATE users SET username = 'changed behind our back'")
    assert (await scored.reader().read()).rows[0].username == "ann"


async def test_a_reader_never_overwrites_a_change(scored: ScoredBoard) -> None:
    """What a change has written stays, though a reader comes with what it read before."""
    ann = await scored.user("ann")
    _, profiles = scored.node()
    await rename(scored, profiles, ann, "anna", "https://example.org/new.png")
    await run_in_asyncio(profiles._fill_aio, {ann: module.Profile("ann", None)})
    kept = await hash_of(scored, ann)
    assert (kept[b"username"], kept[b"avatarUrl"]) == (b"anna", b"https://example.org/new.png")


async def test_a_change_is_on_every_node_s_board(scored: ScoredBoard) -> None:
    """It raises version, top and names, says so, and another node's read shows it although that node had the old name
    at hand."""
    ann = await scored.user("ann")
    await scored.score(ann, 10)
    here, profiles = scored.node()
    there = scored.reader()
    before = await there.read()
    pubsub = scored.stores.subscriber().pubsub()
    await run_in_asyncio(pubsub.subscribe, UPDATES)
    await rename(scored, profiles, ann, "anna")

    async def message() -> bytes:
        while True:
            answer = await pubsub.get_message(timeout=5)
            if answer and answer["type"] == "message":
                data: bytes = answer["data"]
                return data

    update = decode(await run_in_asyncio(message), "")
    await run_in_asyncio(pubsub.aclose)
    assert isinstance(update, Update)
    assert (update.version.version, update.shown_version, update.personal) == (
        before.version + 1,
        before.version + 1,
        (),
    )
    there.note_hint(update.version, update.shown_version)
    after = await there.read()
    assert after.rows[0].username == "anna"
    assert after.position != before.position
    assert after.updated_ms >= before.updated_ms
    here.note_hint(update.version, update.shown_version)
    assert (await here.read()).rows[0].username == "anna"


async def content_of(scored: ScoredBoard) -> dict[bytes, bytes]:
    """The version, top and names of a board's meta."""
    meta = await scored.stores.command("HGETALL", NAMES.meta)
    return {name: meta.get(name, b"0") for name in (b"version", b"top", b"names", b"updated")}


@asynccontextmanager
async def received_updates(scored: ScoredBoard) -> AsyncIterator[list[Update]]:
    """What is published meanwhile; complete after the block."""
    pubsub = scored.stores.subscriber().pubsub()
    await run_in_asyncio(pubsub.subscribe, UPDATES)
    updates: list[Update] = []
    yield updates
    await scored.stores.command("PUBLISH", UPDATES, b"end")

    async def receive() -> None:
        async for message in pubsub.listen():
            if message["data"] == b"end":
                break
            if message["type"] == "message" and isinstance(update := decode(message["data"], ""), Update):
                updates.append(update)
        await pubsub.aclose()

    await run_in_asyncio(receive)


async def test_who_is_on_no_board_moves_none(scored: ScoredBoard) -> None:
    """An account without a score changes its name: no version, no names, no message; who has the name at hand keeps
    it."""
    ann, bob = await scored.user("ann"), await scored.user("bob")
    await scored.score(ann, 10)
    board, profiles = scored.node()
    await board.read()
    before, cached = await content_of(scored), profiles._cache
    async with received_updates(scored) as updates:
        await rename(scored, profiles, bob, "bill", "https://example.org/b.png")
    assert (await content_of(scored), updates) == (before, [])
    board.invalidate()
    await board.read()
    assert profiles._cache is cached
    await scored.score(bob, 5)
    board.invalidate()
    assert [row.username for row in (await board.read()).rows] == ["ann", "bill"]


async def crowd(scored: ScoredBoard, count: int) -> list[UUID]:
    users = [await scored.user(f"u{number}") for number in range(count)]
    for place, user in enumerate(users):
        await scored.score(user, 1000 - place)
    return users


async def test_a_change_below_the_shown_rows_has_no_new_position(scored: ScoredBoard) -> None:
    """The version rises, so that lists of a hundred are read anew; the shown top is what it was, and nobody is sent a
    frame."""
    users = await crowd(scored, TOP_SIZE + 2)
    profiles = Profiles(scored.stores)
    there = scored.reader()
    before, old = await there.read(), await content_of(scored)
    async with received_updates(scored) as updates:
        await rename(scored, profiles, users[TOP_SIZE], "anna")
    (update,) = updates
    new = await content_of(scored)
    assert (
        (update.version.version, update.shown_version)
        == (int(new[b"version"]), before.shown_version)
        == (before.version + 1, int(old[b"top"]))
    )
    assert new[b"updated"] == old[b"updated"]
    shown = next_frame_set(None, before)
    there.note_hint(update.version, update.shown_version)
    after = await there.read()
    assert (after.rows[TOP_SIZE].username, after.position) == ("anna", before.position)
    assert next_frame_set(shown, after) is None


async def test_a_change_below_all_rows_is_right_when_the_user_comes_back(
    scored: ScoredBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node has the old name at hand, of a time when the user stood higher: nothing is sent, and once he is back his
    new name is shown."""
    monkeypatch.setattr(module, "READ_SIZE", 3)
    monkeypatch.setattr(board_module, "READ_SIZE", 3)
    users = await crowd(scored, 4)
    profiles = Profiles(scored.stores)
    there = scored.reader()
    assert (await there.read()).rows[2].username == "u2"
    await scored.score(users[3], 999)  # u2 is the fourth now
    there.invalidate()
    before, old = await there.read(), await content_of(scored)
    async with received_updates(scored) as updates:
        await rename(scored, profiles, users[2], "anna")
    new = await content_of(scored)
    assert updates == []
    assert (new[b"version"], new[b"top"], new[b"updated"]) == (old[b"version"], old[b"top"], old[b"updated"])
    there.invalidate()
    after = await there.read()
    assert (after.rows, after.position) == (before.rows, before.position)
    await scored.score(users[2], 1001)
    there.invalidate()
    assert [row.username for row in (await there.read()).rows] == ["anna", "u0", "u1"]


async def test_a_change_of_who_left_the_board_is_right_when_he_comes_back(scored: ScoredBoard) -> None:
    """His score is gone, his name is still at hand on a node; he changes it, and scores again."""
    ann = await scored.user("ann")
    await scored.score(ann, 10)
    board, profiles = scored.node()
    await board.read()
    await run_in_asyncio(
        scored.projection.apply_aio, SequenceRange(1, 2, 2), [LedgerRow(LEADERBOARD, ann, None, 0, 10**12)], []
    )
    board.invalidate()
    assert (await board.read()).rows == ()
    old = await content_of(scored)
    await rename(scored, profiles, ann, "anna")
    new = await content_of(scored)
    assert (new[b"version"], new[b"top"]) == (old[b"version"], old[b"top"])
    await run_in_asyncio(
        scored.projection.apply_aio, SequenceRange(1, 3, 3), [LedgerRow(LEADERBOARD, ann, 20, 3, 10**12 + 1)], []
    )
    board.invalidate()
    assert [row.username for row in (await board.read()).rows] == ["anna"]


async def test_a_removed_picture_is_gone(scored: ScoredBoard) -> None:
    """A profile without a picture replaces one with it."""
    ann = await scored.user("ann", "https://example.org/a.png")
    await scored.score(ann, 10)
    board, profiles = scored.node()
    assert (await board.read()).rows[0].avatarUrl is not None
    await rename(scored, profiles, ann, "ann")
    board.invalidate()
    assert (await board.read()).rows[0].avatarUrl is None


async def test_a_change_does_nothing_to_a_board_that_is_not_there(scored: ScoredBoard) -> None:
    """Without an epoch neither version nor top is made: the rebuilt board reads the names anew anyway."""
    ann = await scored.user("ann")
    await scored.stores.command("FLUSHALL")
    await rename(scored, scored.node()[1], ann, "anna")
    assert await scored.stores.command("EXISTS", NAMES.meta) == 0
    assert (await hash_of(scored, ann))[b"username"] == b"anna"


async def test_a_change_that_redis_missed_is_left_to_the_projector(database_url: str, fresh_valkey: OwnValkey) -> None:
    """The change returns though Redis is away, and stands in the outbox as one of names."""
    async with open_stores(database_url, fresh_valkey.url) as stores:
        scored = ScoredBoard(stores)
        await scored.open_board()
        ann = await scored.user("ann")
        await scored.score(ann, 10)
        _, profiles = scored.node()
        fresh_valkey.kill()
        await rename(scored, profiles, ann, "anna")
    async with open_stores(database_url, fresh_valkey.url) as stores:
        assert [list(row["users"]) for row in await stores.fetch("SELECT users FROM commits WHERE names")] == [[ann]]


@pytest.mark.parametrize("setting", ["maxmemory 1", "min-replicas-to-write 1"])
async def test_a_redis_that_takes_no_writes_costs_no_board(scored: ScoredBoard, setting: str) -> None:
    """Names come from PostgreSQL then, and are only not kept in Redis."""
    name, value = setting.split()
    ann = await scored.user("ann")
    await scored.score(ann, 10)
    await scored.stores.command("CONFIG", "SET", name, value)
    try:
        snapshot = await scored.reader().read()
    finally:
        await scored.stores.command("CONFIG", "SET", name, 0)
    assert (snapshot.rows[0].username, snapshot.stale) == ("ann", False)
    assert await hash_of(scored, ann) == {}


async def test_names_at_hand_are_dropped_after_five_minutes(
    scored: ScoredBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node drops its cached names after that time, also when no change was announced."""
    ann = await scored.user("ann")
    await scored.score(ann, 10)
    board, _ = scored.node()
    await board.read()
    await scored.stores.execute("UPDATE users SET username = 'anna'")
    await scored.stores.command("DEL", SPECIFIED.profile(ann))
    board.invalidate()
    assert (await board.read()).rows[0].username == "ann"
    monkeypatch.setattr(module, "PROFILE_TTL_SECONDS", 0)
    board.invalidate()
    assert (await board.read()).rows[0].username == "anna"


NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"


def without_postgresql(stores: Stores) -> Stores:
    """The same Redis, and a PostgreSQL that is not there."""
    nowhere = PostgresConnector(NOWHERE)
    pool = PostgresPool(nowhere, 1)
    return Stores(nowhere, stores.redis_url, pool, stores.redis, stores.redis_bulk, stores.redis_direct)


async def test_without_postgresql_a_board_is_shown_with_stand_ins(scored: ScoredBoard) -> None:
    """When no store gives a name, the board is shown with a placeholder, and the next read asks again."""
    ann = await scored.user("ann")
    await scored.score(ann, 10)
    board = ScoredBoard(without_postgresql(scored.stores)).reader()
    assert (await board.read()).rows[0].username == placeholder(ann).username
    await scored.reader().read()  # another node fills the hash
    board.invalidate()
    assert (await board.read()).rows[0].username == "ann"


async def test_a_name_that_was_known_is_kept_while_nobody_tells_it(
    scored: ScoredBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL is away for longer than names are kept anywhere: the row keeps the name that this node knew, and asks
    again each time."""
    ann = await scored.user("ann", "https://example.org/a.png")
    await scored.score(ann, 10)
    board = ScoredBoard(without_postgresql(scored.stores)).reader()
    await scored.reader().read()  # fills the hash
    await board.read()
    await scored.stores.command("DEL", SPECIFIED.profile(ann))
    monkeypatch.setattr(module, "PROFILE_TTL_SECONDS", 0)
    for _ in range(3):
        board.invalidate()
        (row,) = (await board.read()).rows
        assert (row.username, row.avatarUrl) == ("ann", "https://example.org/a.png")
    monkeypatch.setattr(module, "PROFILE_TTL_SECONDS", 300)
    await scored.stores.command("HSET", SPECIFIED.profile(ann), "username", "anna", "avatarUrl", "")
    board.invalidate()
    assert (await board.read()).rows[0].username == "anna"


async def test_a_key_of_somebody_else_costs_no_board(scored: ScoredBoard) -> None:
    """What has a profile's name in Redis and is none counts as missing: the name comes from PostgreSQL."""
    ann, bob = await scored.user("ann"), await scored.user("bob")
    await scored.score(ann, 20)
    await scored.score(bob, 10)
    await scored.stores.command("SET", SPECIFIED.profile(ann), "not ours")
    snapshot = await scored.reader().read()
    assert ([row.username for row in snapshot.rows], snapshot.stale) == (["ann", "bob"], False)


async def test_names_outlive_a_full_cache(scored: ScoredBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that is emptied because it is full forgets no name for good: without any store that tells it, it is the
    last one known."""
    monkeypatch.setattr(module, "CACHE_SIZE", 2)
    users = [await scored.user(name) for name in ("ann", "bob", "cid")]
    profiles = Profiles(without_postgresql(scored.stores))
    other = Profiles(scored.stores)
    await run_in_asyncio(other.find_aio, users)  # fills Redis
    for user in users:
        await run_in_asyncio(profiles.find_aio, [user])
    assert len(profiles._cache) <= 2
    await scored.stores.command("FLUSHALL")
    assert await run_in_asyncio(profiles.find_aio, [users[0]]) == {}
    assert [profiles.last_known(user).username for user in users] == ["ann", "bob", "cid"]


async def test_the_names_that_were_known_are_bounded(scored: ScoredBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above LAST_KNOWN_SIZE only the names of the last cache are kept; an older one becomes a placeholder."""
    monkeypatch.setattr(module, "LAST_KNOWN_SIZE", 3)
    users = [await scored.user(f"u{n}") for n in range(4)]
    profiles = Profiles(scored.stores)
    for turn, two in enumerate((users[:2], users[2:])):
        await run_in_asyncio(profiles.find_aio, two)
        profiles.drop_outdated("leaderboard", 1, turn)
    assert len(profiles._last_known) <= 3
    assert [profiles.last_known(user).username for user in users[2:]] == ["u2", "u3"]
    assert profiles.last_known(users[0]) == placeholder(users[0])


async def test_only_missing_names_are_looked_up(scored: ScoredBoard) -> None:
    """A changed score needs no call for the profile when it is cached."""
    ann = await scored.user("ann")
    await scored.score(ann, 10)
    board, _ = scored.node()
    await board.read()
    await scored.score(ann, 20)
    board.invalidate()
    async with counted_commands(scored.stores) as counts:
        await board.read()
    # the script's own two commands, for the versions
    assert "hmget" not in {name: count for name, count in counts.items() if count > 2}


async def test_the_cache_is_bounded(scored: ScoredBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    """More users than it holds empty it; the board is right all the same."""
    monkeypatch.setattr(module, "CACHE_SIZE", 4)
    users = [await scored.user(f"u{n}") for n in range(4)]
    for place, user in enumerate(users):
        await scored.score(user, 100 - place)
    board, profiles = scored.node()
    assert [entry.username for entry in (await board.read()).rows] == ["u0", "u1", "u2", "u3"]
    late = await scored.user("late")
    await scored.score(late, 500)
    board.invalidate()
    assert (await board.read()).rows[0].username == "late"
    assert len(profiles._cache) <= 4
