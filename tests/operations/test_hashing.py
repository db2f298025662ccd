"""The queue for password hashing: its bound, its order, and that every place is released."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import trio
import trio.lowlevel

from scoreboard.operations.hashing import HashingQueue, Place

ADA, EVE = UUID(int=1), UUID(int=2)


def taken(queue: HashingQueue, *, known: bool, often: int) -> list[Place]:
    """The places that were given, of so many asked for."""
    return [place for _ in range(often) if (place := queue.reserve(known=known))]


@asynccontextmanager
async def occupied(queue: HashingQueue) -> AsyncIterator[threading.Event]:
    """One hash runs until the event is set."""
    going = threading.Event()
    place = queue.reserve()
    assert place is not None
    try:
        async with trio.open_nursery() as nursery:
            with place:
                nursery.start_soon(place.run, going.wait, 20)
                await trio.testing.wait_all_tasks_blocked()
                try:
                    yield going
                finally:
                    going.set()
    finally:
        going.set()


def test_strangers_leave_room_for_known_browsers() -> None:
    """A flood of strangers has its part of the places, known browsers the rest, and all together not one more."""
    queue = HashingQueue(hashing=2, waiting=8, reserved=3)
    assert len(taken(queue, known=False, often=50)) == 7
    assert len(taken(queue, known=True, often=50)) == 3
    assert queue.in_use == 10


def test_whose_cookie_is_another_accounts_is_a_stranger() -> None:
    """He gives the place up when strangers have theirs full; else he keeps it as one of them. A second of the same user
    is one as well."""
    queue = HashingQueue(hashing=1, waiting=3, reserved=2)
    first, second, third = taken(queue, known=True, often=3)
    assert first.confirm(ADA)
    assert second.confirm(ADA)
    assert [first.known, second.known] == [True, False]
    assert third.confirm(None)
    assert not third.known
    (fourth,) = taken(queue, known=True, often=2)
    assert not fourth.confirm(None)
    for place in (first, second, third, fourth):
        queue.release(place)
    assert queue.in_use == 0
    assert len(taken(queue, known=False, often=9)) == 2
    (again, _) = taken(queue, known=True, often=9)
    assert again.confirm(ADA)
    assert again.known


async def test_known_browsers_are_served_first() -> None:
    """Known browsers go before others, and in the order of their arrival."""
    queue, order = HashingQueue(hashing=1), list[str]()

    async def ask(name: str, user: UUID | None) -> None:
        place = queue.reserve(known=user is not None)
        assert place is not None
        with place:
            assert place.confirm(user)
            await place.run(order.append, name)

    async with trio.open_nursery() as nursery, occupied(queue):
        for name, user in (("stranger", None), ("another", None), ("ada", ADA), ("eve", EVE)):
            nursery.start_soon(ask, name, user)
            await trio.testing.wait_all_tasks_blocked()
    assert order == ["ada", "eve", "stranger", "another"]
    assert queue.in_use == 0


async def test_whoever_leaves_gives_the_place_back() -> None:
    """In line at once, and nobody's turn is lost, also when it comes in the same moment; while hashing, when the thread
    has ended."""
    queue, done = HashingQueue(hashing=1, waiting=2, reserved=0), list[str]()
    scopes = [trio.CancelScope(), trio.CancelScope()]

    async def ask(number: int) -> None:
        place = queue.reserve()
        assert place is not None
        with place, scopes[number]:
            await place.run(done.append, str(number))

    async with trio.open_nursery() as nursery, occupied(queue) as going:
        for number in range(2):
            nursery.start_soon(ask, number)
        await trio.testing.wait_all_tasks_blocked()
        assert queue.reserve() is None
        scopes[0].cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert queue.in_use == 2
        going.set()
        while queue._strangers_line:  # until it is the second's turn
            await trio.lowlevel.checkpoint()
        scopes[1].cancel()
    with trio.fail_after(10):
        place = queue.reserve()
        assert place is not None
        with place:
            await place.run(done.append, "next")
    assert "0" not in done
    assert done[-1] == "next"
    assert (queue.in_use, queue._idle) == (0, 1)


async def test_a_hash_that_raises_frees_its_thread() -> None:
    """The next one is served."""
    queue = HashingQueue(hashing=1)
    for _ in range(3):
        place = queue.reserve()
        assert place is not None
        try:
            with place:
                await place.run(int, "no number")
        except ValueError:
            pass
    assert (queue.in_use, queue._idle) == (0, 1)
