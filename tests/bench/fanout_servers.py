"""Who sends boards to viewers: this server on each of its transports, and the peers that are installed; and what makes
each send.

Every one runs alone, as one process (nginx: a master and one worker), on a fresh port. This server runs whole, on fresh
stores, its limits for one address switched off because all viewers come from here. A peer has nothing to do but send: a
message as long as one of our boards, ten times a second by its own timer (Nchan's comes from this process).
"""

import importlib.util
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import trio

from tests.bench import machine, servers
from tests.bench.fanout_crowd import Crowd
from tests.bench.fanout_driver import PLAYERS, Drive, driving
from tests.bench.load import Actor
from tests.bench.run import ROOT
from tests.bench.servers import ServerPlace

TICK = 0.1  # seconds between two messages of Nchan's; the other peers have the same
PEERS = ROOT / "tests" / "peers"
FILLED = '{{"filling":"{}","sent":{:.3f}}}'
MODULES = [
    Path(folder, "nginx", "modules", "ngx_nchan_module.so") for folder in ("/usr/lib", "/usr/lib64", "/usr/local/lib")
]


class Contender(msgspec.Struct, frozen=True):
    name: str
    title: str
    transport: str = "websocket"
    path: str = "/"
    mode: str | None = None  # what viewers of our server subscribe with

    @property
    def is_ours(self) -> bool:
        return self.name.startswith("ours")

    async def open(self, viewers: Crowd, count: int) -> float:
        return await viewers.open(count, transport=self.transport, path=self.path, mode=self.mode)


LIVE = "/api/v1/scores/live"
OURS = Contender("ours", "this server, WebSocket", path=LIVE, mode="full")
ALL = (
    OURS,
    Contender("ours-delta", "this server, WebSocket, deltas", path=LIVE, mode="delta"),
    Contender("ours-sse", "this server, Server-Sent Events", transport="stream"),
    Contender("ours-poll", "this server, long poll", transport="poll"),
    Contender("bun", "Bun (uWebSockets), publish"),
    Contender("picows", "picows on uvloop"),
    Contender("websockets", "websockets.broadcast on uvloop"),
    Contender("node", "Node ws"),
    Contender("nchan", "nginx with Nchan"),
    Contender("fastapi", "FastAPI on uvicorn, send_text"),
    Contender("quart", "Quart-Trio on Hypercorn, websocket.send"),
)
CONTENDERS = {contender.name: contender for contender in ALL}


class Served(msgspec.Struct, frozen=True):
    """A server that takes viewers."""

    contender: Contender
    pid: int
    site: ServerPlace
    size: int  # bytes a message of a peer's
    actors: list[Actor]

    def cpu_seconds(self) -> float:
        return sum(machine.cpu_seconds(pid) for pid in machine.tree(self.pid))

    def memory_kib(self) -> int:
        return sum(machine.pss_kib(pid) for pid in machine.tree(self.pid))

    async def metric(self, name: str) -> float:
        """A counter or gauge of our server's; 0 while there is none."""
        async with httpx.AsyncClient(timeout=30) as client:
            text = (await client.get(f"http://127.0.0.1:{self.site.port}/metrics")).text
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(f"{name} "))


# ---- what is installed -----------------------------------------------------------------------------------------------


def find_ws() -> Path | None:
    """The folder that holds the npm package `ws`."""
    folders = [ROOT / "node_modules", *map(Path, filter(None, os.environ.get("NODE_PATH", "").split(os.pathsep)))]
    return next((folder for folder in folders if (folder / "ws" / "package.json").is_file()), None)


def find_nchan() -> Path | None:
    return next((module for module in MODULES if module.is_file()), None) if shutil.which("nginx") else None


def missing(contender: Contender) -> str | None:
    """What has to be installed first; None when all is there."""
    match contender.name:
        case "bun":
            return None if servers.find_bun() else "Bun (BUN, or the npm package bun in ./node_modules)"
        case "node":
            return (
                None
                if shutil.which("node") and find_ws()
                else "node and the npm package ws (in ./node_modules or NODE_PATH)"
            )
        case "nchan":
            return None if find_nchan() else "nginx with Nchan (Debian: libnginx-mod-nchan)"
        case "picows" | "websockets" | "fastapi":
            needed = {
                "picows": ("picows", "uvloop"),
                "websockets": ("websockets", "uvloop"),
                "fastapi": ("fastapi", "uvicorn", "uvloop"),
            }
            lacking = [name for name in needed[contender.name] if importlib.util.find_spec(name) is None]
            return ", ".join(lacking) + " (the extra bench)" if lacking else None
    return None


# ---- the commands ----------------------------------------------------------------------------------------------------


def our_environ(site: ServerPlace) -> dict[str, str]:
    return servers.our_environ(site) | {"SCOREBOARD_LIVE__CONNECTIONS_PER_IP": "0"}


def command(contender: Contender, site: ServerPlace, size: int) -> tuple[list[str], dict[str, str]]:
    """How to start it: arguments and what is added to the environment."""
    environ = {"PORT": str(site.port), "SIZE": str(size)}
    match contender.name:
        case "bun":
            bun = servers.find_bun()
            assert bun is not None  # `missing` was asked
            return [bun, "run", str(PEERS / "fanout_bun.ts")], environ
        case "node":
            return ["node", str(PEERS / "fanout_node.cjs")], environ | {"NODE_PATH": str(find_ws())}
        case "nchan":
            text = (
                (PEERS / "fanout_nchan.conf")
                .read_text()
                .replace("MODULE", str(find_nchan()))
                .replace("PORT", str(site.port))
            )
            (site.folder / "nginx.conf").write_text(text)
            return ["nginx", "-p", str(site.folder), "-c", "nginx.conf", "-e", "stderr"], {}
        case "fastapi":
            options = [
                "--loop",
                "uvloop",
                "--ws",
                "websockets",
                "--no-access-log",
                "--log-level",
                "warning",
                "--backlog",
                "4096",
            ]
            options += ["--ws-per-message-deflate", "false", "--host", "127.0.0.1", "--port", str(site.port)]
            return [sys.executable, "-m", "uvicorn", "tests.peers.fanout_fastapi:app", *options], environ
        case "picows" | "websockets" | "quart":
            return [sys.executable, "-m", f"tests.peers.fanout_{contender.name}"], environ
    return [sys.executable, "-m", "scoreboard", "serve"], our_environ(site)


# ---- life ------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def started(contender: Contender, site: ServerPlace, size: int) -> AsyncIterator[Served]:
    """Raises RuntimeError as `servers.child`."""
    ready = servers.answers if contender.is_ours else servers.listens
    async with servers.child(contender.title, *command(contender, site, size), site, ready) as process:
        actors = await servers.our_actors(site, PLAYERS) if contender.is_ours else []
        yield Served(contender, process.pid, site, size, actors)


async def publish(served: Served) -> None:
    """Nchan's timer."""
    filling = "x" * (served.size - len(FILLED.format("", time.time() * 1000)))
    async with httpx.AsyncClient(timeout=30) as client:
        due = trio.current_time()
        while True:
            due = max(due + TICK, trio.current_time())
            await trio.sleep_until(due)
            message = FILLED.format(filling, time.time() * 1000)
            await client.post(f"http://127.0.0.1:{served.site.port}/publish", content=message)


@asynccontextmanager
async def sending(served: Served) -> AsyncIterator[Drive]:
    """Inside, a new board (or a peer's message) goes out every 100 ms. A peer goes on sending to the end: it is left
    once."""
    if served.contender.is_ours:
        async with driving(served.site.port, served.actors) as drive:
            yield drive
    elif served.contender.name == "nchan":
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish, served)
            yield Drive()
            nursery.cancel_scope.cancel()
    else:
        os.kill(served.pid, signal.SIGUSR2)
        yield Drive()
