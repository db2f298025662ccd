"""The outbox: what is added once, claimed by one node, and ends as sent or dead."""

from uuid import UUID

import trio

from scoreboard.domain.outgoing_messages import MAX_PENDING, MAX_TRIES, Channel, OutgoingMessage
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres import outgoing_messages
from scoreboard.storage.postgres.outgoing_messages import ClaimedMessage

MESSAGE = OutgoingMessage(Channel.ALERTS, "anomaly", "flag-1", "Something happened", {"flagId": 1})


async def add(stores: Stores, *keys: str) -> int:
    messages = [MESSAGE._replace(key=key) for key in keys]
    return await stores.in_transaction(outgoing_messages.add_aio, messages)


async def claim(stores: Stores, limit: int = 100) -> list[ClaimedMessage]:
    return await outgoing_messages.claim(stores, [Channel.ALERTS], limit)


async def end_claims(stores: Stores) -> None:
    await stores.execute("UPDATE outgoing_messages SET due_at = now() - interval '1 second' WHERE state = 'pending'")


async def states(stores: Stores) -> list[tuple[str, int]]:
    rows = await stores.fetch("SELECT state, tries FROM outgoing_messages ORDER BY key")
    return [(row["state"], row["tries"]) for row in rows]


async def test_what_is_told_is_told_once(stores: Stores) -> None:
    """A second message with the same key is not added, also after the first was sent."""
    assert await add(stores, "a", "b") == 2
    assert await add(stores, "b", "c") == 1
    for message in await claim(stores):
        await outgoing_messages.mark_sent(stores, message)
    assert await add(stores, "a") == 0
    assert await claim(stores) == []


async def test_a_message_is_claimed_by_one_node_at_a_time(stores: Stores) -> None:
    """However many ask at once; a node that ends leaves its claim to the others when its time is over."""
    await add(stores, *[str(number) for number in range(40)])
    claimed = list[UUID]()

    async def one_node() -> None:
        claimed.extend([message.id for message in await claim(stores, 7)])

    async with trio.open_nursery() as nursery:
        for _ in range(12):
            nursery.start_soon(one_node)
    assert len(claimed) == len({*claimed}) == 40
    assert await claim(stores) == []
    await end_claims(stores)
    assert len(await claim(stores)) == 40


async def test_who_has_lost_the_claim_changes_nothing(stores: Stores) -> None:
    """A node that was paused learns nothing of it; what the new holder notes stands."""
    await add(stores, "a")
    (stale,) = await claim(stores)
    await end_claims(stores)
    (held,) = await claim(stores)
    await outgoing_messages.mark_failed(stores, stale, "too late", 0)
    await outgoing_messages.mark_sent(stores, stale)
    assert await states(stores) == [("pending", 2)]
    await outgoing_messages.mark_sent(stores, held)
    assert await states(stores) == [("sent", 2)]


async def test_a_message_that_always_fails_is_dead_in_the_end(stores: Stores) -> None:
    """It is listed with its last error, and an operator can have it tried again."""
    await add(stores, "a")
    for _ in range(MAX_TRIES):
        (message,) = await claim(stores)
        await outgoing_messages.mark_failed(stores, message, "no answer" * 100, 0)
    assert await claim(stores) == []
    (dead,) = await outgoing_messages.list_messages(stores, "dead")
    assert (dead.state, dead.tries, dead.last_error) == ("dead", MAX_TRIES, ("no answer" * 100)[:300])
    assert await outgoing_messages.retry(stores, UUID(int=1)) == 0
    assert await outgoing_messages.retry(stores, dead.id) == 1
    assert len(await claim(stores)) == 1
    assert await outgoing_messages.list_messages(stores, "dead") == []


async def test_a_failed_message_waits(stores: Stores) -> None:
    """For the time that it was given."""
    await add(stores, "a")
    (message,) = await claim(stores)
    await outgoing_messages.mark_failed(stores, message, "busy", 60)
    assert await claim(stores) == []
    assert await states(stores) == [("pending", 1)]


async def test_pending_messages_are_bounded(stores: Stores) -> None:
    """Further ones are not added while the receiver is away; there is room again when some were sent."""
    assert await add(stores, *[str(number) for number in range(MAX_PENDING + 5)]) == MAX_PENDING
    assert await add(stores, "another") == 0
    for message in await claim(stores, 2):
        await outgoing_messages.mark_sent(stores, message)
    assert await add(stores, "x", "y", "z") == 2


async def test_two_writers_do_not_exceed_the_bound_together(stores: Stores) -> None:
    """They add one after the other."""
    await add(stores, *[str(number) for number in range(MAX_PENDING - 1)])
    added = list[int]()

    async def write(key: str) -> None:
        added.append(await add(stores, key))

    async with trio.open_nursery() as nursery:
        for key in ("x", "y", "z"):
            nursery.start_soon(write, key)
    assert sorted(added) == [0, 0, 1]


async def test_old_messages_are_pruned(stores: Stores) -> None:
    """Sent ones after a week, dead ones after a month, pending ones never."""
    await add(stores, "dead", "pending", "sent")
    for key, days in (("sent", 8), ("dead", 29)):
        await stores.execute(
            "UPDATE outgoing_messages SET state = key, ended_at = now() - make_interval(days => $2) WHERE key = $1",
            key,
            days,
        )
    await outgoing_messages.prune(stores)
    assert await states(stores) == [("dead", 0), ("pending", 0)]
    await stores.execute("UPDATE outgoing_messages SET ended_at = ended_at - interval '2 days'")
    await outgoing_messages.prune(stores)
    assert await states(stores) == [("pending", 0)]
