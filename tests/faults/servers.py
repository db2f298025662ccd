"""Stores and nodes of a fault test's own: a Valkey, an embedded PostgreSQL, and two nodes that reach each store by a
proxy each.

Everything here outlives a single test, so the proxies run in a thread with a Trio loop of their own. Processes are
ended by their id.
"""

import os
import signal
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from scoreboard.embedded import stack as embedded
from scoreboard.embedded.process import free_port
from scoreboard.embedded.servers import find_binaries
from scoreboard.embedded.stack import Endpoints
from tests.background_loop import in_background
from tests.conftest import execute, resp
from tests.e2e.conftest import HIGH
from tests.e2e.server_processes import ServerProcess
from tests.storage.proxy import Proxy, proxy_before

START_SECONDS = 20.0  # for a store to answer; a second is usual, recovery after a kill takes longer
STORES = ("postgres", "redis")


# ---- stores ---------------------------------------------------------------------------------------------------------


class Valkey:
    """A Valkey on a port of its own: `kill` it, `start` it again with its data or (`forget`) empty; `say` sends one
    command."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.port, self.options = folder, free_port(), options
        self.url = f"redis://:secret@127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> "Valkey":
        own = ("--port", str(self.port), "--bind", "127.0.0.1", "--requirepass", "secret", "--masterauth", "secret")
        kept = ("--dir", str(self.folder), "--save", "", "--appendonly", "yes", "--appendfsync", "everysec")
        command: list[str | Path] = [
            find_binaries().valkey,
            *own,
            *kept,
            "--enable-debug-command",
            "yes",
            *self.options,
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until(lambda: self.is_up, "Valkey does not start")
        return self

    @property
    def is_up(self) -> bool:
        try:
            return resp(self.url, "PING") == b"+PONG"
        except OSError:
            return False

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def forget(self) -> None:
        for file in sorted(self.folder.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()

    def say(self, command: str) -> bytes:
        return resp(self.url, command)

    def do(self, command: str) -> None:
        """A command that must be accepted."""
        answer = self.say(command)
        assert not answer.startswith(b"-"), f"{command}: {answer.decode()}"


class Postgres:
    """An embedded PostgreSQL of one's own, with the Valkey that comes with it, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.endpoints: Endpoints  # set by `postgres_of_ones_own`

    @property
    def url(self) -> str:
        return self.endpoints.postgres_url

    @property
    def pid(self) -> int:
        return int((self.folder / "postgres" / "postmaster.pid").read_text().split("\n", 1)[0])

    def signal(self, number: int) -> None:
        """To the server and all of its processes, as when the machine stands still."""
        main = self.pid
        for pid in (main, *children_of(main)):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass  # it ended meanwhile

    def end(self, number: int) -> None:
        """Sends the main process a signal that it ends of, and waits until it has gone."""
        main = self.pid
        os.kill(main, number)
        wait_until(lambda: not _is_alive(main), "PostgreSQL does not end")

    async def start(self) -> None:
        """Starts it again, on its port: whoever joins a data folder starts what does not run."""
        async with embedded.running(self.folder) as endpoints:
            assert endpoints == self.endpoints, "it came back on another port"


def _is_alive(pid: int) -> bool:
    """A dead child that nobody has waited for counts as dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children_of(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def wait_until(is_true: Callable[[], bool], otherwise: str, seconds: float = START_SECONDS) -> None:
    pause = threading.Event()
    for _ in range(round(seconds / 0.02)):
        if is_true():
            return
        pause.wait(0.02)
    raise AssertionError(otherwise)


# ---- pairs of nodes -------------------------------------------------------------------------------------------------


@contextmanager
def postgres_of_ones_own(folder: Path) -> Iterator[Postgres]:
    """A PostgreSQL that a test may do to as it likes. It may be stopped or dead in the end."""
    made = Postgres(folder)
    with in_background(lambda: embedded.running(folder, restarts=False)) as (endpoints, _):
        made.endpoints = endpoints
        try:
            yield made
        finally:
            try:
                made.signal(signal.SIGCONT)
            except OSError:
                pass  # it is dead: so is its pid file


@dataclass
class Pair:
    """Two nodes on one pair of stores. `links[node, store]` is the proxy by which that node alone reaches that
    store."""

    folder: Path
    postgres: str
    valkey: Valkey
    nodes: list[ServerProcess]
    links: dict[tuple[int, str], Proxy]
    newcomers: int = 0  # users who acted for the first time in a test before
    is_clean: bool = True  # False: a test failed; the next one gets fresh processes

    def __post_init__(self) -> None:
        self._homes = {key: link.target for key, link in self.links.items()}

    def sql(self, *statements: str) -> None:
        """As another client of PostgreSQL, past the proxies."""
        execute(self.postgres, *statements)

    def start_nodes(self) -> None:
        """One after the other: several first starts at once are a test of their own."""
        for node in self.nodes:
            node.start()

    def kill_nodes(self) -> None:
        for node in self.nodes:
            if node.process is not None and node.process.poll() is None:
                node.kill()

    def restart(self) -> None:
        """Fresh processes and an empty Valkey after a test that failed: its damage is no other test's."""
        for key, link in self.links.items():
            link.restore()
            link.target = self._homes[key]
        self.kill_nodes()
        self.valkey.kill()
        self.valkey.forget()
        self.valkey.start()
        self.start_nodes()
        self.is_clean = True


def node_on(folder: Path, postgres: str, redis: str, **settings: str) -> ServerProcess:
    """A node that is not started yet; all nodes of one folder share their keys."""
    (folder / "keys").mkdir(parents=True, exist_ok=True)
    environment = {
        "postgres__url": postgres,
        "redis__url": redis,
        "embedded__data_dir": str(folder / "keys"),
        "server__public_url": "http://scoreboard.test",
        "limits__login_per_minute": HIGH,
        "limits__ip_per_minute": HIGH,
        "limits__user_per_minute": "0",
        "live__connections_per_ip": "0",
        "live__connections_per_user": "200",
        "log__format": "json",
    } | settings
    return ServerProcess(
        folder, ["--no-embedded"], {f"SCOREBOARD_{name.upper()}": value for name, value in environment.items()}
    )


@contextmanager
def pair_on(folder: Path, postgres: str, valkey: Valkey, **settings: str) -> Iterator[Pair]:
    """Two nodes that run, each behind proxies of its own. All are killed in the end."""
    urls = {"postgres": postgres, "redis": valkey.url}

    @asynccontextmanager
    async def open_links() -> AsyncIterator[dict[tuple[int, str], Proxy]]:
        async with AsyncExitStack() as stack:
            yield {
                (node, store): await stack.enter_async_context(proxy_before(urls[store]))
                for node in (0, 1)
                for store in STORES
            }

    with in_background(open_links) as (links, _):
        nodes = [node_on(folder, links[node, "postgres"].url, links[node, "redis"].url, **settings) for node in (0, 1)]
        pair = Pair(folder, postgres, valkey, nodes, links)
        try:
            pair.start_nodes()
            yield pair
        finally:
            for node in nodes:
                if node.process is not None and node.process.poll() is None:
                    node.signal(signal.SIGCONT)
            pair.kill_nodes()
