"""Notes of log-ins: written off the way of a log-in, bounded, and without an address."""

from ipaddress import ip_address

import pytest
import trio

from scoreboard.domain.errors import StorageUnavailable
from scoreboard.drivers.stores import Stores
from scoreboard.operations import log_in_networks
from scoreboard.operations.log_in_networks import MAX_NOTES, LogInNetworks
from scoreboard.storage.flagging import Opened
from scoreboard.storage.log_in_networks import note_log_in
from tests.storage.conftest import stores
from tests.storage.seeds import make_users

__all__ = ["stores"]  # the fixture

NOW = 1_793_491_200.0


def networks_of(stores: Stores, opened: list[Opened] | None = None, most: int = 2) -> LogInNetworks:
    told: list[Opened] = [] if opened is None else opened
    return LogInNetworks(stores, b"m" * 32, most, alerts=False, clock=lambda: NOW, count_opened=told.append)


async def written(stores: Stores, networks: LogInNetworks, rows: int) -> None:
    """Runs the task until so many rows are there."""
    async with trio.open_nursery() as nursery:
        await nursery.start(networks.run)
        with trio.fail_after(10):
            while await stores.fetchval("SELECT count(*) FROM log_in_networks") < rows:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def test_a_network_is_an_address_or_a_64(stores: Stores) -> None:
    """Two addresses of one IPv6 /64 are one network. Nothing of an address is stored."""
    users = await make_users(stores, 4)
    networks = networks_of(stores, most=100)
    for address, user in zip(("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"), users, strict=True):
        networks.note(address, user)
    await written(stores, networks, 4)
    rows = await stores.fetch("SELECT network FROM log_in_networks")
    assert len({row["network"] for row in rows}) == 3
    assert {len(row["network"]) for row in rows} == {16}
    assert not any(ip_address("192.0.2.1").packed in row["network"] for row in rows)


async def test_too_many_accounts_are_told(stores: Stores) -> None:
    """The new flag is counted once."""
    opened = list[Opened]()
    networks = networks_of(stores, opened)
    for user in await make_users(stores, 5):
        networks.note("192.0.2.1", user)
    await written(stores, networks, 5)
    assert sum(len(each.flags) for each in opened) == 1


async def test_notes_are_bounded_and_an_outage_drops_some(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log-in is never delayed or refused by it; the task goes on."""
    (user,) = await make_users(stores, 1)
    networks, calls = networks_of(stores), 0

    async def flaky(*args: object, **others: object) -> Opened:
        nonlocal calls
        calls += 1
        if calls <= MAX_NOTES - 1:
            raise StorageUnavailable("postgresql", "gone")
        return await note_log_in(*args, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(log_in_networks, "note_log_in", flaky)
    for _ in range(MAX_NOTES + 100):
        networks.note("192.0.2.1", user)
    await written(stores, networks, 1)
    assert calls == MAX_NOTES


@pytest.mark.parametrize("address", ["", "no address", "x" * 10_000, "\ud800"])
async def test_any_text_is_borne(stores: Stores, address: str) -> None:
    """What is no address is a network of its own."""
    (user,) = await make_users(stores, 1)
    networks = networks_of(stores)
    networks.note(address, user)
    await written(stores, networks, 1)
