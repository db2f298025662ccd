"""Honest clients of `scripts/bench front-line`: a board now and then, an action, a log-in, a probe, each from an
address of its own.

Requests are due at fixed times, and the time of each counts from when it was due: whoever waits behind a request that
hangs waits, too.
"""

import itertools
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import trio

from tests.bench.frontline_report import Sample
from tests.bench.frontline_wire import BOARD, POLL, Client, json_request, request
from tests.bench.load import ACTION_PATH, Actor, action_body, sign

CLIENTS = 10  # from as many addresses
INTERVAL_SECONDS = 0.1  # between two requests of a client: 600 a minute, of 1,000 that an address may send
LOG_IN_SECONDS = 1.0  # between two log-ins, each by the next client: six a minute and address, of ten
GIVE_UP_SECONDS = 5.0  # a client that has waited so long has not been served
CHECK_SECONDS = 0.05  # between two looks whether all requests of a phase have their end
NEW_CONNECTION = 8  # every eighth request of a client comes on a new connection, as a new visitor's would
KINDS = ("board", "board", "action", "board", "livez", "board", "poll", "board")  # what a client asks in turn
PASSWORD = "correct-horse-battery"


def addresses() -> list[str]:
    return [f"127.0.1.{place}" for place in range(1, CLIENTS + 1)]


class Crowd:
    """All honest clients. `names` are the accounts that they log in to."""

    def __init__(self, port: int, actors: Sequence[Actor], names: Sequence[str]) -> None:
        self._samples: list[tuple[float, Sample]] = []  # with when each was due
        self._due: dict[str, float] = {}  # of each client: when the request that it is at was due, or the next will be
        self.names = list(names)
        self.port = port
        self._actors = itertools.cycle(actors)  # many: a user may act ten times a minute
        self._numbers = itertools.count()

    def request(self, kind: str) -> bytes:
        if kind == "board":
            return request("GET", BOARD)
        if kind == "livez":
            return request("GET", "/livez")
        if kind == "poll":
            return request("GET", f"{POLL}?wait=0")
        actor = next(self._actors)
        body = action_body(f"honest-{next(self._numbers)}", datetime.now(UTC))
        fields = {
            "Authorization": f"Bearer {actor.token}",
            "X-Action-Signature": sign(actor, body),
            "Content-Type": "application/json",
        }
        return request("POST", ACTION_PATH, body, fields)

    async def _ask(self, client: Client, kind: str, data: bytes, due: float) -> None:
        served = False
        try:
            with trio.move_on_at(due + GIVE_UP_SECONDS):
                status, _ = await client.ask(data)
                served = status == 200
        except (OSError, EOFError, ValueError, trio.BrokenResourceError):
            pass  # not served
        self._samples.append((due, Sample(kind, (trio.current_time() - due) * 1e3, served)))

    async def during(self, seconds: float) -> list[Sample]:
        """What becomes of all requests that are due within so many seconds from now. Returns when the last of them has
        its end."""
        self._samples.clear()
        begun = trio.current_time()
        await trio.sleep(seconds)
        end = trio.current_time()
        while min(self._due.values()) < end:  # GIVE_UP_SECONDS at most
            await trio.sleep(CHECK_SECONDS)
        return [sample for due, sample in self._samples if begun <= due < end]

    async def visit(self, address: str, first: float) -> None:
        """One client, until cancelled."""
        client = Client(self.port, address)
        try:
            for number in itertools.count():
                self._due[address] = due = first + number * INTERVAL_SECONDS
                await trio.sleep_until(due)
                if number % NEW_CONNECTION == 0:
                    client.close()
                kind = KINDS[number % len(KINDS)]
                await self._ask(client, kind, self.request(kind), due)
        finally:
            client.close()

    async def log_in(self) -> None:
        """One log-in after the other, each on a connection of its own, until cancelled."""
        first, places = trio.current_time(), addresses()
        for number in itertools.count():
            self._due["log-in"] = due = first + number * LOG_IN_SECONDS
            await trio.sleep_until(due)
            body = {"username": self.names[number % len(self.names)], "password": PASSWORD}
            client = Client(self.port, places[number % len(places)])
            await self._ask(client, "log-in", json_request("POST", "/api/v1/auth/login", body), due)
            client.close()


@asynccontextmanager
async def crowd(port: int, actors: Sequence[Actor], names: Sequence[str]) -> AsyncIterator[Crowd]:
    """Honest clients that come and go on asking until the block ends."""
    made = Crowd(port, actors, names)
    async with trio.open_nursery() as nursery:
        now = trio.current_time()
        for place, address in enumerate(addresses()):
            nursery.start_soon(made.visit, address, now + place * INTERVAL_SECONDS / CLIENTS)
        nursery.start_soon(made.log_in)
        await trio.sleep(LOG_IN_SECONDS)
        yield made
        nursery.cancel_scope.cancel()


async def register(port: int, name: str, address: str) -> str:
    """A new account; its access token. Raises RuntimeError when it is refused."""
    client = Client(port, address)
    body = {"username": name, "email": f"{name}@example.org", "password": PASSWORD}
    status, answer = await client.ask(json_request("POST", "/api/v1/auth/register", body))
    client.close()
    if status != 201:
        raise RuntimeError(f"no account {name}: {status} {answer.decode(errors='replace')}")
    return str(json.loads(answer)["data"]["accessToken"])


async def position(port: int) -> str:
    """Of the board now."""
    client = Client(port, addresses()[0])
    status, answer = await client.ask(request("GET", f"{POLL}?wait=0"))
    client.close()
    if status != 200:
        raise RuntimeError(f"no board: {status} {answer.decode(errors='replace')}")
    return str(json.loads(answer)["data"]["position"])
