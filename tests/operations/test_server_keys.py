"""Which server keys a node accepts: rotation, expiry and revocation, on every node and without Redis."""

from collections.abc import AsyncIterator

import pytest
import trio

from scoreboard.domain.errors import StorageUnavailable
from scoreboard.domain.scopes import Scope
from scoreboard.drivers.clock import DatabaseClock
from scoreboard.drivers.stores import Stores
from scoreboard.operations import server_keys as module
from scoreboard.operations.admin.server_keys import NewKey, create_key, revoke_key, rotate_key
from scoreboard.operations.server_keys import ServerKeys
from scoreboard.security.server_keys import SECRET_BYTES, make_key
from scoreboard.storage.postgres import server_keys as storage
from tests.operations.people import database_url, node

__all__ = ["database_url"]  # the module's own fixture


class SetClock(DatabaseClock):
    """A clock that a test moves."""

    ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead


@pytest.fixture
async def stores(database_url: str, redis_url: str) -> AsyncIterator[Stores]:
    async with node(database_url, redis_url) as people:
        await people.stores.execute("DELETE FROM server_keys")
        yield people.stores


async def made(stores: Stores, name: str = "eu-1", *scopes: Scope, days: float | None = None) -> NewKey:
    key = await create_key(stores, name, scopes or (Scope.SCORES,), days)
    assert isinstance(key, NewKey)
    return key


async def read(stores: Stores, clock: DatabaseClock | None = None) -> ServerKeys:
    """A node's keys, as its first read finds them."""
    keys = ServerKeys(stores, clock or DatabaseClock())
    async with trio.open_nursery() as nursery:
        await nursery.start(keys.watch)
        nursery.cancel_scope.cancel()
    return keys


async def test_a_key_has_its_scopes(stores: Stores) -> None:
    """And no other."""
    key = await made(stores, "eu-1", Scope.USERS, Scope.READ)
    identity = (await read(stores)).authenticate(key.key)
    assert identity is not None
    assert (identity.id, identity.scopes, identity.actor) == (
        key.id,
        frozenset({Scope.USERS, Scope.READ}),
        f"server-key:{key.id}",
    )


async def test_what_is_no_valid_key(stores: Stores) -> None:
    """A guessed secret of a known id, a key of an unknown id, the id alone, and the zeros that stand for no digest."""
    key = await made(stores)
    keys = await read(stores)
    assert keys.authenticate(key.key) is not None
    for wrong in (make_key(key.id, bytes(SECRET_BYTES)), make_key("0" * 12, bytes(SECRET_BYTES)), key.id, ""):
        assert keys.authenticate(wrong) is None


async def test_the_old_key_is_valid_for_the_overlap(stores: Stores) -> None:
    """Both are, then only the new one; without an overlap the old one ends at once."""
    clock = SetClock()
    old = await made(stores)
    new = await rotate_key(stores, "eu-1", 60)
    assert isinstance(new, NewKey)
    keys = await read(stores, clock)
    assert keys.authenticate(old.key) is not None
    assert keys.authenticate(new.key) is not None
    clock.ahead = 61
    assert keys.authenticate(old.key) is None
    assert keys.authenticate(new.key) is not None
    newest = await rotate_key(stores, old.id, 0)
    assert isinstance(newest, NewKey)
    keys = await read(stores)
    assert [keys.authenticate(key.key) is not None for key in (old, new, newest)] == [False, False, True]


async def test_a_key_expires(stores: Stores) -> None:
    """By PostgreSQL's clock, also between two reads."""
    clock = SetClock()
    key = await made(stores, days=1)
    keys = await read(stores, clock)
    assert keys.authenticate(key.key) is not None
    clock.ahead = 24 * 3600
    assert keys.authenticate(key.key) is None


async def test_a_revoked_key_ends_on_every_node(stores: Stores) -> None:
    """Within two seconds, without a message; a new key is known as soon."""
    key, nodes = await made(stores), [ServerKeys(stores, DatabaseClock()) for _ in range(2)]
    async with trio.open_nursery() as nursery:
        for one in nodes:
            await nursery.start(one.watch)
        assert all(one.authenticate(key.key) for one in nodes)
        assert await revoke_key(stores, "eu-1") == key.id
        with trio.fail_after(2):
            while any(one.authenticate(key.key) for one in nodes):
                await trio.sleep(0.05)
        other = await made(stores)
        with trio.fail_after(2):
            while not all(one.authenticate(other.key) for one in nodes):
                await trio.sleep(0.05)
        nursery.cancel_scope.cancel()


async def test_keys_outlive_an_outage_of_postgresql(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that were read stay valid, and the next read that succeeds counts."""
    key, reads = await made(stores), 0

    async def fail(_stores: Stores) -> list[object]:
        nonlocal reads
        reads += 1
        raise StorageUnavailable("postgresql", "gone")

    keys = ServerKeys(stores, DatabaseClock())
    monkeypatch.setattr(module, "REVOCATION_CHECK_SECONDS", 0.01)
    async with trio.open_nursery() as nursery:
        await nursery.start(keys.watch)
        with monkeypatch.context() as patched:
            patched.setattr(storage, "live", fail)
            with trio.fail_after(5):
                while reads < 2:
                    await trio.sleep(0.01)
            assert keys.authenticate(key.key) is not None
        await revoke_key(stores, key.id)
        with trio.fail_after(5):
            while keys.authenticate(key.key):
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def test_the_last_use_is_written_once_a_minute(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the key is used, and never for a key that was refused."""
    key, other = await made(stores), await made(stores, "eu-2")
    monkeypatch.setattr(module, "REVOCATION_CHECK_SECONDS", 0.01)
    writes: list[set[str]] = []
    note_used = storage.note_used

    async def note(stores: Stores, used: set[str]) -> None:
        await note_used(stores, used)
        writes.append(set(used))

    monkeypatch.setattr(storage, "note_used", note)
    keys = ServerKeys(stores, DatabaseClock())
    async with trio.open_nursery() as nursery:
        await nursery.start(keys.watch)
        for _ in range(100):
            assert keys.authenticate(key.key)
            assert keys.authenticate(make_key(other.id, bytes(SECRET_BYTES))) is None
        await trio.sleep(0.1)
        assert writes == []  # a minute is not over
        monkeypatch.setattr(module, "NOTE_USE_SECONDS", 0.0)
        with trio.fail_after(5):
            while not writes:
                await trio.sleep(0.01)
        await trio.sleep(0.05)
        nursery.cancel_scope.cancel()
    assert writes == [{key.id}]
    rows = await stores.fetch("SELECT id FROM server_keys WHERE last_used_at IS NOT NULL")
    assert [row["id"] for row in rows] == [key.id]


def test_no_repr_has_a_secret() -> None:
    """Whatever prints the values of this module."""
    assert "secret" not in repr(NewKey("0" * 12, "secret"))
    assert "digest" not in repr(storage.StoredKey("0" * 12, ("read",), b"digest", b"digest", None, None))
