"""Real servers for every test that wants one: a PostgreSQL and a Valkey of the session, in a temporary folder, by our
own launcher.

`database_url` is a fresh migrated database, `empty_database_url` one without tables, `redis_url` an emptied Valkey;
`fresh_valkey` is a process of one's own, for tests that kill it. Tests run one after the other, so the session's Valkey
may be flushed for each.
"""

import asyncio
import itertools
import socket
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg
import pytest
import trio
import trio_asyncio

from scoreboard.embedded import stack as embedded
from scoreboard.embedded.process import free_port
from scoreboard.embedded.servers import find_binaries
from scoreboard.embedded.stack import Endpoints
from tests.background_loop import in_background

# Importing trio-asyncio gives asyncio a policy whose loops outside of Trio are Trio in disguise. A browser's loop
# (Playwright's) stays open over many tests, and every later trio.run would be "inside a run()". So outside of Trio
# asyncio is plain asyncio here.
asyncio.set_event_loop_policy(asyncio.DefaultEventLoopPolicy())

T = TypeVar("T")
DATABASES = itertools.count(1)


@pytest.fixture(scope="session")
def embedded_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """Both servers, for the whole session, in a background loop."""
    with in_background(lambda: embedded.running(tmp_path_factory.mktemp("stores"))) as (endpoints, _):
        yield endpoints


def in_thread(work: Callable[..., T], *args: Any) -> T:
    """Runs an event loop where none can be running: a browser's test has one in the main thread."""

    def plain() -> T:
        asyncio.set_event_loop_policy(asyncio.DefaultEventLoopPolicy())  # the policy is a thread's own
        return work(*args)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(plain).result()


def in_asyncio(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Runs asyncpg on a loop of asyncio's own."""
    return in_thread(lambda: asyncio.run(work()))


def execute(url: str, *statements: str) -> None:
    """Runs statements on a connection of their own, one by one."""

    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            for statement in ("SET statement_timeout = 0", "SET lock_timeout = 0", *statements):
                await connection.execute(statement)
        finally:
            await connection.close()

    in_asyncio(run)


@contextmanager
def database(admin_url: str, template: str = "template1") -> Iterator[str]:
    """A new database, a copy of `template`, owned by the application's role; dropped at the end."""
    name = f"test_{next(DATABASES)}"
    execute(admin_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield urlsplit(admin_url)._replace(path=f"/{name}").geturl()
    drop_database(admin_url, name)


def drop_database(admin_url: str, name: str) -> None:
    """Whoever is in it."""
    for _ in range(100):
        try:
            execute(admin_url, f"DROP DATABASE {name} WITH (FORCE)")
        except asyncpg.InsufficientPrivilegeError:  # autovacuum is in there, whom only a superuser may send away
            threading.Event().wait(0.1)
        else:
            return
    raise AssertionError(f"{name} can't be dropped")


@pytest.fixture
def empty_database_url(embedded_servers: Endpoints) -> Iterator[str]:
    """A database without tables."""
    with database(embedded_servers.postgres_url) as url:
        yield url


@pytest.fixture(scope="session")
def migrated_template(embedded_servers: Endpoints) -> Iterator[str]:
    """The name of a database that the migrations have been applied to."""
    from scoreboard.storage.postgres.migrate import migrate

    async def run(url: str) -> None:
        async with trio_asyncio.open_loop():
            await migrate(url)

    with database(embedded_servers.postgres_url) as url:
        in_thread(trio.run, run, url)
        yield urlsplit(url).path.removeprefix("/")


@pytest.fixture
def database_url(embedded_servers: Endpoints, migrated_template: str) -> Iterator[str]:
    """A migrated database without a row."""
    with database(embedded_servers.postgres_url, migrated_template) as url:
        yield url


def resp(url: str, command: str) -> bytes:
    """Sends one inline command to a Valkey and returns the first line of its answer."""
    parts = urlsplit(url)
    with (
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10) as connection,
        connection.makefile("rb") as answers,
    ):
        connection.sendall(f"AUTH {parts.password}\r\n{command}\r\n".encode())
        answers.readline()
        return answers.readline().rstrip()


@pytest.fixture
def redis_url(embedded_servers: Endpoints) -> str:
    """The session's Valkey, emptied."""
    assert resp(embedded_servers.redis_url, "FLUSHALL") == b"+OK"
    return embedded_servers.redis_url


@dataclass
class OwnValkey:
    """A Valkey of one test: `kill` it, `start` it again on the same port, with its data or (`forget`) empty."""

    url: str
    start: Callable[[], None]
    kill: Callable[[], None]
    forget: Callable[[], None]


@pytest.fixture
def fresh_valkey(tmp_path: Path) -> Iterator[OwnValkey]:
    """A Valkey that a test may do to as it likes."""
    folder = tmp_path / "valkey"
    folder.mkdir()
    port = free_port()
    options = (
        "--bind",
        "127.0.0.1",
        "--requirepass",
        "secret",
        "--dir",
        str(folder),
        "--save",
        "",
        "--appendonly",
        "yes",
    )
    process: subprocess.Popen[bytes] | None = None

    def start() -> None:
        nonlocal process
        command = [str(find_binaries().valkey), "--port", str(port), *options]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        for _ in range(1000):
            threading.Event().wait(0.02)  # one that can't have the port has ended by then
            if process.poll() is not None:
                raise AssertionError("Valkey does not start; another process may have the port")
            try:
                if resp(f"redis://:secret@127.0.0.1:{port}/0", "PING") == b"+PONG":
                    return
            except OSError:
                pass  # not yet
        raise AssertionError("Valkey does not start")

    def kill() -> None:
        nonlocal process
        if process is not None:
            process.kill()
            process.wait()
            process = None

    def forget() -> None:
        for file in sorted(folder.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()

    try:
        start()
    except AssertionError:  # two tests that run side by side may be given the same port
        kill()
        port = free_port()
        start()
    yield OwnValkey(f"redis://:secret@127.0.0.1:{port}/0", start, kill, forget)
    kill()
