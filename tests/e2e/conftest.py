"""Servers for end-to-end tests: one with demo players for the browser, and as many nodes on one pair of stores as a
test wants."""

from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

import httpx
import pytest

from scoreboard.cli import demo
from tests.e2e.browsing import browser, visitor  # noqa: F401 – fixtures
from tests.e2e.server_processes import ServerProcess

HIGH = "1000000"  # a limit that is in force and that a test does not reach
DEMO_TIMEOUT_SECONDS = 180  # for 25 accounts to be made, log in and act; bounds a hang


class LiveServer(ServerProcess):
    """What `scripts/run` starts, with its demo players, whose passwords cost nothing to hash."""

    module = "tests.e2e.cheap_hashes"

    def user(self, name: str) -> tuple[str, str]:
        assert name in demo.HANDLES
        return name, demo.PASSWORD


@pytest.fixture(scope="session")
def live_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("live")
    server = LiveServer(
        folder,
        ["--embedded", "--data-dir", str(folder / "data")],
        {"SCOREBOARD_LIMITS__LOGIN_PER_MINUTE": HIGH, "SCOREBOARD_LIMITS__IP_PER_MINUTE": HIGH},
    )
    server.start()
    deadline = monotonic() + DEMO_TIMEOUT_SECONDS
    while _players(server) < len(demo.HANDLES) - 1:
        assert monotonic() < deadline, "the demo players have not opened the board"
        sleep(0.1)
    yield server
    server.stop()


def _players(server: LiveServer) -> int:
    """How many are on the board; 0 while it can't be read, as on a busy machine just after a start."""
    answer = httpx.get(f"{server.url}/api/v1/scores/leaderboard?limit=100", timeout=10)
    return len(answer.json()["data"]["leaderboard"]) if answer.is_success else 0


@pytest.fixture
def start_node(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts a node on this test's stores; settings as `limits__user_per_minute="10"`. All nodes share their keys.

    `descriptors`: how many the process may have.
    """
    nodes: list[ServerProcess] = []

    def start(
        *, redis: str = redis_url, postgres: str = database_url, descriptors: int = 0, **settings: str
    ) -> ServerProcess:
        environment = {
            "postgres__url": postgres,
            "redis__url": redis,
            "embedded__data_dir": str(tmp_path / "keys"),
            "security__issuer": "http://scoreboard.test",  # and no public URL: browsers ask each node by its address
            "limits__login_per_minute": HIGH,
            "limits__ip_per_minute": HIGH,
            "log__format": "json",
        } | settings
        (tmp_path / "keys").mkdir(exist_ok=True)
        node = ServerProcess(
            tmp_path, ["--no-embedded"], {f"SCOREBOARD_{name.upper()}": value for name, value in environment.items()}
        )
        node.descriptors = descriptors
        nodes.append(node.start())
        return node

    yield start
    for node in nodes:
        if node.process is not None and node.process.poll() is None:
            node.kill()
