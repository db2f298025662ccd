"""A real PostgreSQL and a real Valkey for development: `async with running(data_dir) as endpoints`.

Whoever comes first starts them, whoever comes later on the same data folder joins them, and whoever leaves last stops
them. Two locks in the folder (flock: the kernel drops them when their holder is killed) see to that: `starting.lock` is
held by the one who starts or stops, a share of `using.lock` by everybody who uses them. Servers that a killed process
left running are simply taken over. A server that dies is started again on its port by whoever notices first. SIGTERM
and SIGHUP stop the servers before the process ends. Production never comes here.
"""

import fcntl
import json
import os
import secrets
import signal
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import structlog
import trio

from scoreboard.domain.errors import StartError
from scoreboard.embedded import servers
from scoreboard.embedded.process import POLL_SECONDS, Server, account_for, free_port

# Seconds for all of a start; 1 is usual. Recovery from a crash after heavy writing takes longest: 16 for 1 GiB of WAL
# on two busy cores, and there may be two. A recovery that is given up begins anew at the next start: too short a time
# would keep the stores down for ever.
START_SECONDS = 120.0
STOP_SECONDS = 25.0  # seconds for all of a stop: longer than the signals of both servers together need
MAX_LAUNCHES = 3  # a free port can be lost between looking and binding, hardly twice
# between two looks at servers that run: the application gives a store that is away a second before it says so
WATCH_SECONDS = 0.5
# a server that dies more often in this time is not started again: the process ends and says why
MAX_RESTARTS, RESTART_WINDOW_SECONDS = 5, 600.0
# seconds before the first restart, doubled with each: processes of a killed PostgreSQL need a moment to end
RESTART_DELAY_SECONDS = 0.5
# SIGINT is Trio's: it raises KeyboardInterrupt, which stops the servers too
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
STACK = "stack.json"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the servers are; both hold a password."""

    postgres_url: str = field(repr=False)
    redis_url: str = field(repr=False)


@dataclass(slots=True)
class Stack:
    """What is saved of a data folder's servers: the word on their command lines, their passwords, the ports that they
    had last."""

    mark: str
    postgres_password: str = field(repr=False)
    redis_password: str = field(repr=False)
    postgres_port: int = 0
    redis_port: int = 0

    @classmethod
    def load(cls, data_dir: Path) -> "Stack":
        path = data_dir / STACK
        if not path.exists():
            return cls(f"scoreboard-{secrets.token_hex(8)}", secrets.token_hex(16), secrets.token_hex(16))
        try:
            return cls(**json.loads(path.read_text()))
        except (ValueError, TypeError) as exc:
            raise StartError(f"{path} is damaged: restore it, or name another data folder") from exc

    def save(self, data_dir: Path) -> None:
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


@dataclass(frozen=True, slots=True)
class _Member:
    """A server and how it is started. `launch(True)` takes another port if its own is taken, `launch(False)` raises
    StartError then."""

    server: Server
    launch: Callable[[bool], None]
    ready: Callable[[], Awaitable[bool]]


def has_data(data_dir: Path) -> bool:
    """Whether servers have been started in this folder before. One that can't be looked into counts: its error is told
    at the start."""
    try:
        return (data_dir / STACK).exists() or (data_dir / "postgres" / "PG_VERSION").exists()
    except OSError:
        return True


@asynccontextmanager
async def running(
    data_dir: Path, *, postgres_settings: Mapping[str, str] | None = None, restarts: bool = True
) -> AsyncIterator[Endpoints]:
    """Inside, both servers run and answer. Leaving, also by cancellation, stops them unless another process still uses
    them; bounded.

    `postgres_settings` go before our own (benchmarks compare them); whoever joins a running stack finds those that it
    was started with. `restarts`: a server that dies is started again; False for tests that kill one and want it dead.
    Raises StartError (one line) when they are not installed, the folder can't be used, they don't answer within
    START_SECONDS, or one of them dies again and again. SIGTERM or SIGHUP cancels what is inside, and SystemExit is
    raised once the servers have stopped.
    """
    binaries, data_dir = servers.find_binaries(), data_dir.absolute()
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        starting, using = (
            os.open(data_dir / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o600) for name in ("starting", "using")
        )
    except OSError as exc:
        raise StartError(f"the data folder {data_dir} can't be used: {exc.strerror}") from exc
    stack: list[_Member] = []
    failure: Exception | None = None
    with trio.CancelScope() as scope, _cancelled_by_signals(scope) as signals:
        try:
            with trio.move_on_after(START_SECONDS) as start:
                await _lock(starting, fcntl.LOCK_EX)
                await _lock(using, fcntl.LOCK_SH)
                endpoints = await _start(data_dir, binaries, stack, postgres_settings or {})
                fcntl.flock(starting, fcntl.LOCK_UN)
            if start.cancelled_caught:
                words = _log_tails(stack) or "another process is starting or stopping them"
                raise StartError(f"the embedded servers did not answer within {START_SECONDS:.0f} s: {words}")
            async with trio.open_nursery() as nursery:
                if restarts:
                    nursery.start_soon(_restart_dead_servers, stack, starting)
                try:
                    yield endpoints
                except Exception as exc:  # noqa: BLE001 – raised again below: the nursery would wrap it in a group
                    failure = exc
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + STOP_SECONDS):
                await _lock(starting, fcntl.LOCK_EX)
                if _try_lock(using, fcntl.LOCK_EX):
                    for member in stack:
                        await member.server.stop()
            for member in stack:
                member.server.detach()
            os.close(using)
            os.close(starting)
    if signals and scope.cancelled_caught:
        raise SystemExit(128 + signals[0])  # as shells count
    if failure is not None:
        raise failure


@contextmanager
def _cancelled_by_signals(scope: trio.CancelScope) -> Iterator[list[int]]:
    """Inside, SIGTERM and SIGHUP cancel `scope` instead of killing the process; gives those that came. One that is
    ignored stays so.

    A handler that is installed inside (a node's, which drains first) takes precedence. Only a process' main thread gets
    signals.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    token = trio.lowlevel.current_trio_token()

    def handle(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        token.run_sync_soon(scope.cancel, idempotent=True)

    former = {
        number: found for number in ENDING_SIGNALS if (found := signal.getsignal(number)) not in {signal.SIG_IGN, None}
    }
    try:
        for number in former:
            signal.signal(number, handle)
        yield came
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


async def _start(
    data_dir: Path, binaries: servers.Binaries, stack: list[_Member], postgres_settings: Mapping[str, str]
) -> Endpoints:
    """Joins what runs and starts what doesn't; `stack` is filled at once, so that a failure half-way can stop it."""
    try:
        saved = Stack.load(data_dir)
        account = account_for(data_dir / "postgres")
        postgres = servers.postgres_server(data_dir / "postgres", saved.mark, account)
        valkey = servers.valkey_server(data_dir / "valkey", saved.mark, account)
        programs = await trio.to_thread.run_sync(servers.executable_binaries, binaries, account)

        def launch_postgres(may_move: bool) -> None:
            saved.postgres_port = _port_of(postgres, saved.postgres_port, may_move)
            saved.save(data_dir)
            postgres.launch(servers.postgres_command(postgres, programs, saved.postgres_port, postgres_settings))

        def launch_valkey(may_move: bool) -> None:
            saved.redis_port = _port_of(valkey, saved.redis_port, may_move)
            saved.save(data_dir)
            servers.prepare_valkey(valkey, saved.redis_password, saved.redis_port)
            valkey.launch(servers.valkey_command(valkey, programs))

        stack += [
            _Member(postgres, launch_postgres, lambda: servers.postgres_ready(postgres, saved.postgres_port)),
            _Member(
                valkey, launch_valkey, lambda: servers.valkey_ready(valkey, saved.redis_port, saved.redis_password)
            ),
        ]
        if postgres.pid() is None or valkey.pid() is None:
            saved.save(data_dir)  # before the folder is made with its password
            await servers.prepare_postgres(postgres, programs, saved.postgres_password)
        await _ensure(stack, may_move=True)
        return saved.endpoints()
    except OSError as exc:
        raise StartError(f"the data folder {data_dir} can't be used: {exc}") from exc


def _port_of(server: Server, wanted: int, may_move: bool) -> int:
    """The port to start on. Clients hold the address of a server that died, so it can't move."""
    port = free_port(wanted)
    if port != wanted and not may_move:
        raise StartError(f"{server.name} can't be started again: its port {wanted} was taken meanwhile")
    return port


async def _restart_dead_servers(stack: list[_Member], starting: int) -> None:
    """Starts a server that died again, on its old port.

    Raises StartError when it does not start, or when it died MAX_RESTARTS times before.
    """
    restarts: deque[float] = deque(maxlen=MAX_RESTARTS)
    while True:
        await trio.sleep(WATCH_SECONDS)
        dead = [member.server for member in stack if not await _is_alive(member.server)]
        if not dead:
            continue
        names = " and ".join(server.name for server in dead)
        words = "; ".join(server.log_tail() for server in dead)
        now = trio.current_time()
        while restarts and restarts[0] < now - RESTART_WINDOW_SECONDS:
            restarts.popleft()
        if len(restarts) == MAX_RESTARTS:
            raise StartError(f"{names} died {MAX_RESTARTS + 1} times within {RESTART_WINDOW_SECONDS:.0f} s: {words}")
        await trio.sleep(RESTART_DELAY_SECONDS * 2 ** len(restarts))
        restarts.append(now)
        await _lock(starting, fcntl.LOCK_EX)
        try:
            with trio.fail_after(START_SECONDS):
                await _ensure(stack, may_move=False)
        except trio.TooSlowError:
            raise StartError(
                f"{names} died and did not answer again within {START_SECONDS:.0f} s: {_log_tails(stack)}"
            ) from None
        except OSError as exc:
            raise StartError(f"{names} died and can't be started again: {exc}") from exc
        finally:
            fcntl.flock(starting, fcntl.LOCK_UN)
        log.warning("embedded_server_restarted", server=names, why=words)


async def _is_alive(server: Server) -> bool:
    """Whether its process is there. Another process' child is looked for in a thread: without /proc that takes a call
    of ps."""
    return not server.ended() or await trio.to_thread.run_sync(server.pid) is not None


def _log_tails(stack: list[_Member]) -> str:
    return "; ".join(f"{member.server.name}: {member.server.log_tail()}" for member in stack)


async def _ensure(stack: list[_Member], *, may_move: bool) -> None:
    """Returns once all of them answer; launches those that don't run. One that lost its port to somebody is launched
    again."""
    launches = {member.server.name: 0 for member in stack}
    while True:
        waiting = [member for member in stack if not await member.ready()]
        if not waiting:
            return
        for member in waiting:
            server = member.server
            if server.pid() is None and server.ended():
                if launches[server.name] == MAX_LAUNCHES:
                    raise StartError(f"{server.name} does not start: {server.log_tail()}")
                launches[server.name] += 1
                member.launch(may_move)
        await trio.sleep(POLL_SECONDS)


async def _lock(descriptor: int, kind: int) -> None:
    """Waits for a file lock. Polls: a thread that waits in flock could not be cancelled."""
    while not _try_lock(descriptor, kind):
        await trio.sleep(POLL_SECONDS)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
