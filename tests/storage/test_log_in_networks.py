"""Many accounts from one network: flagged once, without its address."""

from functools import partial

import trio

from scoreboard.drivers.stores import Stores
from scoreboard.storage import log_in_networks
from scoreboard.storage.log_in_networks import note_log_in
from scoreboard.storage.postgres import flags
from tests.storage.seeds import make_users

NETWORK, OTHER = b"n" * 16, b"o" * 16


async def test_one_more_account_than_allowed_is_flagged_once(stores: Stores) -> None:
    """Not that many; and log-ins of the same accounts do not count again."""
    users = await make_users(stores, 6)
    for user in (*users[:3], *users[:3]):
        assert (await note_log_in(stores, NETWORK, user, 3, alerts=False)).flags == []
    (flag,) = (await note_log_in(stores, NETWORK, users[3], 3, alerts=False)).flags
    assert (flag.rule, flag.user, flag.evidence["accounts"]) == ("shared_address", users[3], 4)
    assert flag.evidence["newest"][0] == str(users[3])
    for user in users[4:]:
        assert (await note_log_in(stores, NETWORK, user, 3, alerts=False)).flags == []
    assert (await note_log_in(stores, OTHER, users[5], 3, alerts=False)).flags == []
    assert len(await flags.list_flags(stores)) == 1


async def test_log_ins_at_once(stores: Stores) -> None:
    """On several nodes: one flag."""
    users = await make_users(stores, 12)
    async with trio.open_nursery() as nursery:
        for user in users:
            nursery.start_soon(partial(note_log_in, stores, NETWORK, user, 3, alerts=True))
    assert len(await flags.list_flags(stores)) == 1
    assert await stores.fetchval("SELECT count(*) FROM outgoing_messages") == 1


async def test_rows_go_with_their_user_or_after_a_month(stores: Stores) -> None:
    """Nothing says longer from where somebody logged in."""
    first, second = await make_users(stores, 2)
    for user in (first, second):
        await note_log_in(stores, NETWORK, user, 3, alerts=False)
    await stores.execute("DELETE FROM users WHERE id = $1", first)
    assert await stores.fetchval("SELECT count(*) FROM log_in_networks") == 1
    await stores.execute("UPDATE log_in_networks SET seen_at = seen_at - interval '36 days'")
    await log_in_networks.prune(stores)
    assert await stores.fetchval("SELECT count(*) FROM log_in_networks") == 0
