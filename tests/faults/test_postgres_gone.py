"""PostgreSQL is killed, stopped or restarted under load: refusals meanwhile, nothing lost, and it goes on two seconds after it answers."""

import signal
from collections.abc import Iterator

import pytest
import trio

from tests.faults.ledger import UNKNOWN
from tests.faults.servers import Pair, Postgres, Valkey, pair_on
from tests.faults.site import Run, lasting, under_fault

AWAY_SECONDS = 2.0
OPEN_SECONDS = 1.0  # until the breaker is open; from then on refusals cost no waiting


@pytest.fixture(scope="module")
def mortal(own_postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A pair whose PostgreSQL may be killed."""
    folder = tmp_path_factory.mktemp("mortal")
    valkey = Valkey(folder / "valkey").start()
    try:
        with pair_on(folder, own_postgres.url, valkey) as made:
            yield made
    finally:
        valkey.kill()


async def refuses(run: Run) -> None:
    """While it is away nobody is told 200."""
    await trio.sleep(OPEN_SECONDS)
    begun = trio.current_time()
    await run.says("postgresql", "down")
    await trio.sleep(lasting(AWAY_SECONDS))
    accepted = [one for one in run.ledger.answers if one.status == 200 and one.sent > begun]
    run.found += [f"{len(accepted)} actions were accepted without PostgreSQL"] if accepted else []


async def accepts_within(run: Run, seconds: float) -> None:
    """Notes if no action is accepted so many seconds after PostgreSQL answers."""
    begun = trio.current_time()
    with trio.move_on_after(seconds + 1.0) as scope:  # one second for a busy machine
        while not any(one.status == 200 and one.sent > begun for one in run.ledger.answers):
            await trio.sleep(0.05)
    run.found += [f"no action was accepted within {seconds:.0f} s"] if scope.cancelled_caught else []


async def test_postgresql_is_killed(mortal: Pair, own_postgres: Postgres) -> None:
    """kill -9 of PostgreSQL: 503 meanwhile, and the first 200 within 2 s after it answers again."""
    async with under_fault(mortal, unavailable=True) as run:
        await trio.to_thread.run_sync(own_postgres.end, signal.SIGKILL)
        await refuses(run)
        await own_postgres.start()
        await accepts_within(run, 2.0)


async def test_postgresql_restarts_at_once(mortal: Pair, own_postgres: Postgres) -> None:
    """An immediate shutdown and a start: recovered, nothing lost."""
    async with under_fault(mortal, unavailable=True) as run:
        await trio.to_thread.run_sync(own_postgres.end, signal.SIGQUIT)
        await own_postgres.start()
        await accepts_within(run, 2.0)


async def test_postgresql_stands_still(mortal: Pair, own_postgres: Postgres) -> None:
    """SIGSTOP of all of its processes, then SIGCONT: what the woken ones still do counts once."""
    async with under_fault(mortal, unavailable=True) as run:
        own_postgres.signal(signal.SIGSTOP)
        try:
            await refuses(run)
        finally:
            own_postgres.signal(signal.SIGCONT)
        await accepts_within(run, 4.0)  # a breaker's interval more
    assert run.ledger.statuses[503] + run.ledger.statuses[UNKNOWN] > 0


async def test_postgresql_stands_still_and_valkey_comes_back_empty(mortal: Pair, own_postgres: Postgres) -> None:
    """Both in turn: Valkey is killed while PostgreSQL stands still, and all is rebuilt when PostgreSQL goes on."""
    async with under_fault(mortal, unavailable=True, bound=10.0) as run:
        own_postgres.signal(signal.SIGSTOP)
        try:
            run.valkey.kill()
            run.valkey.forget()
            await trio.to_thread.run_sync(run.valkey.start)
            await trio.sleep(lasting(AWAY_SECONDS))
        finally:
            own_postgres.signal(signal.SIGCONT)
