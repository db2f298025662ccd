"""What is said between nodes: decoded strictly, received by everyone."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain.boards import BoardVersion
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.drivers.stores import Stores, open_stores
from scoreboard.storage.bus import Bus, Heartbeat, Personal, Rejected, Revoked, Update, decode
from tests.conftest import OwnValkey
from tests.storage.proxy import Fault, proxy_before
from tests.storage.scored_board import ScoredBoard

USER = UUID(int=5)


@pytest.fixture
async def stores(database_url: str, redis_url: str) -> AsyncIterator[Stores]:
    async with open_stores(database_url, redis_url) as opened:
        yield opened


def test_decoding() -> None:
    """Each kind of payload; the rank of each action is its user's place in the call, 0 is unknown."""
    told = f'[["{USER}",10,25,15,1768041000000,"req",1],["{USER}",0,10,10,1768041000000,"req",0]]'
    assert decode(f"board\nhere\nleaderboard\n3\n12\n11\n0,42\n{told}".encode(), "here") == Update(
        "leaderboard",
        BoardVersion(3, 12),
        11,
        (
            Personal(USER, 10, 25, 15, 42, 1768041000000, "req"),
            Personal(USER, 0, 10, 10, None, 1768041000000, "req"),
        ),
    )
    assert decode(b"board\nhere\nleaderboard\n3\n12\n11\n\n[]", "here") == Update(
        "leaderboard", BoardVersion(3, 12), 11, ()
    )
    assert decode(b"beat\nhere\nnode-1", "here") == Heartbeat("node-1")
    assert decode(f"revoked\nhere\n{USER}".encode(), "here") == Revoked(USER)
    rejected = f'{{"user":"{USER}","action_id":"a\\nb","action_type":"race","reason":"no"}}'
    assert decode(f"rejected\nhere\n{rejected}".encode(), "here") == Rejected(USER, "a\nb", "race", "no")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"board",
        b"board\nhere\nleaderboard\n3\n12\n11\n0",
        b"board\nhere\nleaderboard\nx\n12\n11\n0\n[]",
        b"board\nhere\nleaderboard\n3\n12\n11\n7\n[[1]]",
        f'board\nhere\nleaderboard\n3\n12\n11\n7\n[["{USER}",1,1,1,1,"r",5]]'.encode(),
        b'board\nhere\nleaderboard\n3\n12\n11\n7\n[["nobody",1,1,1,1,"r",0]]',
        b"revoked\nhere\nnobody",
        b"beat\nhere\n\xff",
        b"rejected\nhere\n",
        b'rejected\nhere\n{"user":"nobody","action_id":"a","action_type":"t","reason":"r"}',
        b'rejected\nhere\n{"user":5}',
        b"beat\nelsewhere\nnode-1",
        b"something new\nhere\n1",
    ],
)
def test_what_is_not_understood_is_nothing(payload: bytes) -> None:
    """A malformed or unknown payload is ignored, and one of another installation: it may share the Redis."""
    assert decode(payload, "here") is None


@given(
    st.binary(max_size=60) | st.binary(max_size=60).map(lambda rest: b"board\nhere\nleaderboard\n1\n2\n2\n1\n" + rest)
)
def test_no_payload_raises(payload: bytes) -> None:
    """Whatever stands on the channel."""
    decode(payload, "here")


async def test_everything_published_is_received(stores: Stores) -> None:
    """A listener hears beats, log-outs, and the messages that the board's own calls make, its own included, in
    order."""
    bus, scored, sid = Bus(stores), ScoredBoard(stores), uuid4()
    await scored.open_board()
    ann = await scored.user("ann")
    heard: list[object] = []
    ready = trio.Event()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bus.listen, ready.set, lambda payload: heard.append(bus.decode(payload)))
            await ready.wait()
            await bus.publish_beat("here")
            await bus.publish_revoked(sid)
            await scored.score(ann, 10)
            while len(heard) < 3:
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert heard[:2] == [Heartbeat("here"), Revoked(sid)]
    update = heard[2]
    assert isinstance(update, Update)
    assert (update.version, update.position) == (BoardVersion(1, 1), "1-1")
    assert [(one.user, one.new, one.rank) for one in update.personal] == [(ann, 10, 1)]


async def test_a_lost_connection_raises(database_url: str, fresh_valkey: OwnValkey) -> None:
    """Listening ends with StorageUnavailable when Redis dies, and when it is not there to begin with."""
    async with open_stores(database_url, fresh_valkey.url) as stores:
        failed = trio.Event()
        ready = trio.Event()

        async def listen() -> None:
            with pytest.raises(StorageUnavailable):
                await Bus(stores).listen(ready.set, lambda _: None)
            failed.set()

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen)
                await ready.wait()
                fresh_valkey.kill()
                await failed.wait()
            with pytest.raises(StorageUnavailable):
                await Bus(stores).listen(ready.set, lambda _: None)


async def test_a_silent_address_is_given_up_soon(database_url: str, redis_url: str) -> None:
    """A server that takes the connection and never answers ends the attempt, so that the next one may lead
    elsewhere."""
    async with proxy_before(redis_url) as proxy, open_stores(database_url, proxy.url) as stores:
        proxy.fault = Fault.SWALLOW
        with trio.fail_after(5), pytest.raises(StorageUnavailable):
            await Bus(stores).listen(lambda: None, lambda _: None)
