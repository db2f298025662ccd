"""A real PostgreSQL and a real Valkey for development: `async with running(data_dir) as endpoints`.

Whoever comes first starts them, whoever comes later on the same data folder joins them, and whoever leaves last stops them. Two locks in
the folder (flock: the kernel drops them when their holder is killed) see to that: `starting.lock` is held by the one who starts or stops,
a share of `using.lock` by everybody who uses them. Servers that a killed process left running are simply taken over. Production never
comes here.
"""

import fcntl
import json
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from scoreboard.domain.errors import StartError
from scoreboard.runtime import embedded_servers as servers
from scoreboard.runtime.embedded_process import POLL, Server, account_for, free_port

# Seconds for all of a start; 1 is usual. Recovery from a crash after heavy writing takes longest: 16 for 1 GiB of WAL on two busy cores,
# and there may be two. A recovery that is given up begins anew at the next start: too short a time would keep the stores down for ever.
START_SECONDS = 120.0
STOP_SECONDS = 25.0  # seconds for all of a stop: longer than the signals of both servers together need
LAUNCHES = 3  # a free port can be lost between looking and binding, hardly twice
STACK = "stack.json"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the servers are; both hold a password."""

    postgres_url: str = field(repr=False)
    redis_url: str = field(repr=False)


@dataclass(slots=True)
class Stack:
    """What is kept of a data folder's servers: the word on their command lines, their passwords, the ports that they had last."""

    mark: str
    postgres_password: str = field(repr=False)
    redis_password: str = field(repr=False)
    postgres_port: int = 0
    redis_port: int = 0

    @classmethod
    def kept_in(cls, data_dir: Path) -> "Stack":
        path = data_dir / STACK
        if not path.exists():
            return cls(f"scoreboard-{secrets.token_hex(8)}", secrets.token_hex(16), secrets.token_hex(16))
        try:
            return cls(**json.loads(path.read_text()))
        except (ValueError, TypeError) as exc:
            raise StartError(f"{path} is damaged: restore it, or name another data folder") from exc

    def keep(self, data_dir: Path) -> None:
        draft = data_dir / f".{STACK}"
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump({name: getattr(self, name) for name in self.__slots__}, file)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(data_dir / STACK)

    def endpoints(self) -> Endpoints:
        return Endpoints(
            f"postgresql://{servers.ROLE}:{self.postgres_password}@127.0.0.1:{self.postgres_port}/{servers.DATABASE}",
            f"redis://:{self.redis_password}@127.0.0.1:{self.redis_port}/0",
        )


@asynccontextmanager
async def running(data_dir: Path, *, postgres_settings: Mapping[str, str] | None = None) -> AsyncIterator[Endpoints]:
    """Inside, both servers run and answer. Leaving, also by cancellation, stops them unless another process still uses them; bounded.

    `postgres_settings` go before our own (benchmarks compare them); whoever joins a running stack finds those that it was started with.
    Raises StartError (one line) when they are not installed, the folder can't be used, or they don't answer within START_SECONDS.
    """
    binaries, data_dir = servers.find_binaries(), data_dir.absolute()
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        starting, using = (os.open(data_dir / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o600) for name in ("starting", "using"))
    except OSError as exc:
        raise StartError(f"the data folder {data_dir} can't be used: {exc.strerror}") from exc
    stack: list[Server] = []
    try:
        with trio.move_on_after(START_SECONDS) as scope:
            await _lock(starting, fcntl.LOCK_EX)
            await _lock(using, fcntl.LOCK_SH)
            endpoints = await _start(data_dir, binaries, stack, postgres_settings or {})
            fcntl.flock(starting, fcntl.LOCK_UN)
        if scope.cancelled_caught:
            words = "; ".join(f"{server.name}: {server.last_words()}" for server in stack) or "another process is starting or stopping them"
            raise StartError(f"the embedded servers did not answer within {START_SECONDS:.0f} s: {words}")
        yield endpoints
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + STOP_SECONDS):
            await _lock(starting, fcntl.LOCK_EX)
            if _try_lock(using, fcntl.LOCK_EX):
                for server in stack:
                    await server.stop()
        for server in stack:
            server.leave()
        os.close(using)
        os.close(starting)


async def _start(data_dir: Path, binaries: servers.Binaries, stack: list[Server], postgres_settings: Mapping[str, str]) -> Endpoints:
    """Joins what runs and starts what doesn't; `stack` is filled at once, so that a failure half-way can stop it."""
    try:
        kept = Stack.kept_in(data_dir)
        account = account_for(data_dir / "postgres")
        postgres = servers.postgres_server(data_dir / "postgres", kept.mark, account)
        valkey = servers.valkey_server(data_dir / "valkey", kept.mark, account)
        stack += [postgres, valkey]
        if postgres.pid() is None or valkey.pid() is None:
            binaries = await trio.to_thread.run_sync(servers.reachable, binaries, account)
            kept.keep(data_dir)  # before the folder is made with its password
            await servers.prepare_postgres(postgres, binaries, kept.postgres_password)

        def launch_postgres() -> None:
            kept.postgres_port = free_port(kept.postgres_port)
            kept.keep(data_dir)
            postgres.launch(servers.postgres_command(postgres, binaries, kept.postgres_port, postgres_settings))

        def launch_valkey() -> None:
            kept.redis_port = free_port(kept.redis_port)
            kept.keep(data_dir)
            servers.prepare_valkey(valkey, kept.redis_password, kept.redis_port)
            valkey.launch(servers.valkey_command(valkey, binaries))

        await _ensure(
            (postgres, launch_postgres, lambda: servers.postgres_ready(postgres, kept.postgres_port)),
            (valkey, launch_valkey, lambda: servers.valkey_ready(valkey, kept.redis_port, kept.redis_password)),
        )
        return kept.endpoints()
    except OSError as exc:
        raise StartError(f"the data folder {data_dir} can't be used: {exc}") from exc


async def _ensure(*wanted: tuple[Server, Callable[[], None], Callable[[], Awaitable[bool]]]) -> None:
    """Returns once all of them answer; launches those that don't run. One that lost its port to somebody is launched again."""
    launches = {server.name: 0 for server, _, _ in wanted}
    while True:
        waiting = [(server, launch) for server, launch, ready in wanted if not await ready()]
        if not waiting:
            return
        for server, launch in waiting:
            if server.pid() is None and server.ended():
                if launches[server.name] == LAUNCHES:
                    raise StartError(f"{server.name} does not start: {server.last_words()}")
                launches[server.name] += 1
                launch()
        await trio.sleep(POLL)


async def _lock(descriptor: int, kind: int) -> None:
    """Waits for a file lock. Polls: a thread that waits in flock could not be cancelled."""
    while not _try_lock(descriptor, kind):
        await trio.sleep(POLL)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
