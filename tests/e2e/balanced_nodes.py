"""Two real nodes behind each of the load balancers, for the test modules that import these fixtures by name."""

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from scoreboard.embedded.stack import Endpoints
from tests.conftest import database, resp
from tests.e2e.balancers import PROGRAMS, PUBLIC_URL, Balancer, Certificate
from tests.e2e.server_processes import Client, ServerProcess, register

LOG_INS = 5  # a minute, on each node
SPREAD = 16  # connections, of which some come to either node: that all come to one has a chance of 2⁻¹⁵
ADDRESSES = itertools.count(2)


@dataclass
class NodePair:
    """The nodes, and a user who owns the top of the board. `address` gives one that nobody has used."""

    nodes: list[ServerProcess]
    certificate: Certificate
    player: dict[str, str] = field(default_factory=dict)

    def address(self) -> str:
        number = next(ADDRESSES)
        return f"127.0.{number // 250}.{number % 250 + 2}"


@pytest.fixture(scope="module")
def pair(
    embedded_servers: Endpoints, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NodePair]:
    """Two nodes that trust a proxy at 127.0.0.1, for all tests of a module: who stops one starts it again."""
    folder = tmp_path_factory.mktemp("pair")
    (folder / "keys").mkdir()
    assert resp(embedded_servers.redis_url, "FLUSHALL") == b"+OK"
    with database(embedded_servers.postgres_url, migrated_template) as url:
        settings = {
            "postgres__url": url,
            "redis__url": embedded_servers.redis_url,
            "embedded__data_dir": str(folder / "keys"),
            "server__public_url": PUBLIC_URL,
            "server__trusted_proxies": "127.0.0.1/32",
            "server__drain_seconds": "3",
            "limits__user_per_minute": "0",
            "limits__ip_per_minute": "0",
            "limits__profile_changes_per_hour": "0",
            "limits__login_per_minute": str(LOG_INS),
            "limits__login_ip_per_minute": str(LOG_INS),
            "log__format": "json",
        }
        environment = {f"SCOREBOARD_{name.upper()}": value for name, value in settings.items()}
        nodes = [ServerProcess(folder, ["--no-embedded"], environment) for _ in range(2)]
        try:
            yield NodePair([node.start() for node in nodes], Certificate(folder))
        finally:
            for node in nodes:
                if node.process is not None and node.process.poll() is None:
                    node.kill()


@pytest.fixture(scope="module", params=list(PROGRAMS))
def balancer(
    request: pytest.FixtureRequest, pair: NodePair, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Balancer]:
    """Each of the programs in turn."""
    balancer = Balancer(request.param, tmp_path_factory.mktemp(request.param), pair.certificate, pair.nodes).start()
    yield balancer
    balancer.stop()


@asynccontextmanager
async def playing(pair: NodePair, balancer: Balancer) -> AsyncIterator[Client]:
    """A user of no fixed node, always the same one: ten others would push a new one off the board."""
    async with balancer.client(pair.address()) as http:
        if not pair.player:
            pair.player.update((await register(http)).session)
            await Client(http, pair.player).act()
        yield Client(http, pair.player)
