"""Who is compared, and how each is started, given users, and ended.

Every server runs alone, as one process, on the stores that `stores.fresh` made for it. Limits are so high that they
never refuse; their calls are still made. This server runs with everything else switched on. Bun joins where one is
found: at $BUN, or in node_modules where the npm package `bun` puts it.
"""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import jwt
import msgspec
import trio

from tests.bench import stores
from tests.bench.load import Actor
from tests.bench.run import ROOT

USERS = 1_000
UNLIMITED = "1000000000"
START = 30.0  # seconds until a server must be ready: migrations, pools, a cold interpreter
STOP = 10.0  # seconds for a clean end, then it is killed


class ServerPlace(msgspec.Struct, frozen=True):
    """Where one server is to run."""

    port: int
    postgres_url: str
    redis_url: str
    folder: Path


class Contender(msgspec.Struct, frozen=True):
    name: str
    title: str


OURS = Contender("ours", "this server")
FASTAPI = Contender("fastapi", "FastAPI + uvicorn + uvloop + asyncpg")
BUN = Contender("bun", "Bun.serve + Bun.sql + Bun.redis")
CONTENDERS = {contender.name: contender for contender in (OURS, FASTAPI, BUN)}


class Running(msgspec.Struct, frozen=True):
    """A server that answers, and the users that may act on it."""

    pid: int
    site: ServerPlace
    actors: list[Actor]

    async def batches(self) -> tuple[float, float]:
        """Sum and count of the commit batch sizes so far; zeros from a server that doesn't tell."""
        async with httpx.AsyncClient() as client:
            text = (await client.get(f"http://127.0.0.1:{self.site.port}/metrics")).text
        found = dict(
            line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("scoreboard_commit_batch_size_")
        )
        return float(found.get("scoreboard_commit_batch_size_sum", 0)), float(
            found.get("scoreboard_commit_batch_size_count", 0)
        )


def find_bun() -> str | None:
    """The Bun to compare with, if there is one."""
    if named := os.environ.get("BUN"):
        return named
    local = ROOT / "node_modules" / "bun" / "bin" / "bun.exe"
    return str(local) if local.is_file() else None


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


# ---- the commands ----------------------------------------------------------------------------------------------------


def our_environ(site: ServerPlace) -> dict[str, str]:
    return {
        "SCOREBOARD_SERVER__HOST": "127.0.0.1",
        # also of the command that makes the tokens: the address is their issuer
        "SCOREBOARD_SERVER__PORT": str(site.port),
        "SCOREBOARD_POSTGRES__URL": site.postgres_url,
        "SCOREBOARD_REDIS__URL": site.redis_url,
        "SCOREBOARD_EMBEDDED__ENABLED": "false",
        "SCOREBOARD_EMBEDDED__DATA_DIR": str(site.folder),  # the development keys are kept there
        "SCOREBOARD_LIMITS__USER_PER_MINUTE": UNLIMITED,
        "SCOREBOARD_LIMITS__IP_PER_MINUTE": UNLIMITED,
        "SCOREBOARD_LIMITS__SERVER_KEY_PER_MINUTE": UNLIMITED,
    }


def command(contender: Contender, site: ServerPlace, peer_keys: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """How to start it: arguments and what is added to the environment."""
    peer = {
        "DATABASE_URL": site.postgres_url,
        "REDIS_URL": site.redis_url,
        "USER_PER_MINUTE": UNLIMITED,
        "PORT": str(site.port),
        **peer_keys,
    }
    if contender is OURS:
        return [sys.executable, "-m", "scoreboard", "serve"], our_environ(site)
    if contender is FASTAPI:
        options = [
            "--loop",
            "uvloop",
            "--http",
            "httptools",
            "--no-access-log",
            "--log-level",
            "warning",
            "--host",
            "127.0.0.1",
        ]
        return [
            sys.executable,
            "-m",
            "uvicorn",
            "tests.peers.fastapi_peer:app",
            *options,
            "--port",
            str(site.port),
        ], peer
    bun = find_bun()
    assert bun is not None  # `actions` leaves it out otherwise
    return [bun, "run", str(ROOT / "tests" / "peers" / "bun_peer.ts")], peer


# ---- users -----------------------------------------------------------------------------------------------------------


def peer_actors(keys: Mapping[str, str], users: list[uuid.UUID]) -> list[Actor]:
    now = int(time.time())
    claims = {"iat": now, "exp": now + 3600}
    return [
        Actor(
            str(user),
            jwt.encode({"sub": str(user), **claims}, keys["JWT_SECRET"], algorithm="HS256"),
            keys["ACTION_SECRET"],
        )
        for user in users
    ]


async def our_command(site: ServerPlace, *words: str) -> None:
    """Runs `scoreboard WORDS…` with the server's settings. Raises RuntimeError when it fails."""
    done = await trio.run_process(
        [sys.executable, "-m", "scoreboard", *words],
        cwd=ROOT,
        env=os.environ | our_environ(site),
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"`scoreboard {' '.join(words[:2])}` failed:\n{done.stdout.decode(errors='replace')}")


async def our_actors(site: ServerPlace, count: int = USERS) -> list[Actor]:
    file = site.folder / "tokens.tsv"
    await our_command(site, "users", "tokens", "--count", str(count), "--output", str(file))
    return [Actor(*line.split("\t")[:3]) for line in file.read_text().splitlines()]


# ---- life ------------------------------------------------------------------------------------------------------------


async def answers(port: int) -> bool:
    """Whether the server says that it is ready."""
    async with httpx.AsyncClient() as client:
        return (await client.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200


async def listens(port: int) -> bool:
    """Whether anybody takes a connection: for a server that has nothing to say but WebSocket."""
    async with await trio.open_tcp_stream("127.0.0.1", port):
        return True


async def until_ready(process: trio.Process, port: int, log: Path, ready: Callable[[int], Awaitable[bool]]) -> None:
    with trio.move_on_after(START):
        while process.poll() is None:
            try:
                if await ready(port):
                    return
            except (httpx.TransportError, OSError):
                pass  # it does not listen yet
            await trio.sleep(0.1)
    state = (
        f"ended with {process.returncode}" if process.returncode is not None else f"was not ready after {START:.0f} s"
    )
    raise RuntimeError(f"the server {state}; {log_tail(log)}")


def log_tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-20:]
    return "the end of its log:\n" + "\n".join(lines) if lines else "it logged nothing"


async def stop(process: trio.Process) -> None:
    """Ends a server by its id: asked first, killed when it takes too long."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with trio.move_on_after(STOP):
            await process.wait()
        if process.poll() is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def child(
    title: str,
    arguments: list[str],
    environ: Mapping[str, str],
    site: ServerPlace,
    ready: Callable[[int], Awaitable[bool]] = answers,
) -> AsyncIterator[trio.Process]:
    """Starts a server and yields when it is ready; ends it on the way out, whatever happened.

    Raises RuntimeError if it does not start, or has ended by itself.
    """
    log = site.folder / "server.log"
    with log.open("wb") as output:
        process = await trio.lowlevel.open_process(
            arguments,
            cwd=ROOT,
            env=os.environ | environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        await until_ready(process, site.port, log, ready)
        yield process
        if process.poll() is not None:
            raise RuntimeError(f"{title} ended during the run with {process.returncode}; {log_tail(log)}")
    finally:
        with trio.CancelScope(shield=True):  # bounded by STOP
            await stop(process)


@asynccontextmanager
async def running(contender: Contender, site: ServerPlace) -> AsyncIterator[Running]:
    """One server with its users, as `child`."""
    keys = {"JWT_SECRET": secrets.token_hex(32), "ACTION_SECRET": secrets.token_hex(32)}
    users = [uuid.uuid4() for _ in range(USERS)]
    if contender is not OURS:
        await stores.fill_peer(site.postgres_url, users)
    async with child(contender.title, *command(contender, site, keys), site) as process:
        actors = await our_actors(site) if contender is OURS else peer_actors(keys, users)
        yield Running(process.pid, site, actors)
