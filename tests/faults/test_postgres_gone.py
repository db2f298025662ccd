"""PostgreSQL is killed, stopped or restarted under load: refusals meanwhile, nothing lost, and it goes on two seconds
after it answers."""

import signal
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
import trio

from tests.conftest import execute
from tests.faults.ledger import UNKNOWN, Action
from tests.faults.servers import Pair, Postgres, Valkey, pair_on
from tests.faults.under_fault import Run, lasting, under_fault

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
    """While it is away no action is answered with 200."""
    await trio.sleep(OPEN_SECONDS)
    begun = trio.current_time()
    await run.expect_store("postgresql", "down")
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


OTHERS_SQL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = current_user AND pid <> pg_backend_pid()"
)


async def test_the_role_may_not_log_in_any_more(mortal: Pair, own_postgres: Postgres) -> None:
    """Somebody changed the role's password: 503 with Retry-After on every route that needs PostgreSQL, no 500, and
    `/readyz` tells."""
    parts = urlsplit(own_postgres.url)
    another = parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", ":another@")).geturl()
    async with under_fault(mortal, unavailable=True) as run:
        await trio.to_thread.run_sync(execute, own_postgres.url, "ALTER ROLE scoreboard PASSWORD 'another'", OTHERS_SQL)
        try:
            await run.expect_store("postgresql", "down")
            user = run.clients[0]
            body = user.body()
            run.ledger.actions[httpx.Response(200, content=body).json()["actionId"]] = Action(
                user.user, trio.current_time()
            )
            async with httpx.AsyncClient(base_url=mortal.nodes[0].url, timeout=20) as http:
                answers = [
                    await http.post("/api/v1/auth/login", json={"username": "somebody", "password": "a long password"}),
                    await http.get("/api/v1/users/me", headers=user.authorization),
                    await user.act(body),
                ]
            statuses = [(answer.status_code, "retry-after" in answer.headers) for answer in answers]
            run.found += (
                [f"log-in, profile and action were answered {statuses}"] if statuses != [(503, True)] * 3 else []
            )
            await trio.sleep(lasting(1.0))
        finally:
            await trio.to_thread.run_sync(execute, another, f"ALTER ROLE scoreboard PASSWORD '{parts.password}'")
        await accepts_within(run, 4.0)  # a breaker's interval more
