"""A real PostgreSQL and a real Valkey for development: `async with running(data_dir) as endpoints`.

1. The first process on a data folder starts the servers, later ones join, and the last one stops them.
2. Two file locks in the folder coordinate this. A process holds `starting.lock` while it starts or stops servers, and a
   share of `using.lock` while it uses them. The kernel releases a flock when its holder is killed.
3. Servers that a killed process left running are joined like any others.
4. A server that dies is started again on its port by the first process that notices.
5. SIGTERM and SIGHUP stop the servers before the process ends.

Production never uses this.
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

# For a whole start; 1 s is usual. Recovery from a crash after heavy writing takes longest: 16 s for 1 GiB of WAL on two
# busy cores, and two may run. An interrupted recovery begins again at the next start, so with a shorter time the stores
# might never start.
START_SECONDS = 120.0
STOP_SECONDS = 25.0  # for a whole stop: longer than the stop signals of both servers together need
MAX_LAUNCHES = 3  # another process may bind a free port before the server does, but hardly twice
# between two checks of running servers; the application reports a store only after it was away for a second
WATCH_SECONDS = 0.5
# a server that dies more often in this time is not started again: the process ends with a message
MAX_RESTARTS, RESTART_WINDOW_SECONDS = 5, 600.0
# before the first restart, doubled for each further one: processes of a killed PostgreSQL need a moment to end
RESTART_DELAY_SECONDS = 0.5
# not SIGINT: Trio raises KeyboardInterrupt for it, which stops the servers too
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
STACK = "stack.json"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The URLs of the servers. Both contain a password."""

    postgres_url: str = field(repr=False)
    redis_url: str = field(repr=False)


@dataclass(slots=True)
class Stack:
    """The saved state of a data folder's servers: the word on their command lines, their passwords, and their last
    ports."""

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
    """A server and how it is started. If the server's port is in use, `launch(True)` uses another one, and
    `launch(False)` raises StartError."""

    server: Server
    launch: Callable[[bool], None]
    ready: Callable[[], Awaitable[bool]]


def has_data(data_dir: Path) -> bool:
    """Whether servers have been started in this folder before. True also for a folder that can't be read: the start
    then reports its error."""
    try:
        return (data_dir / STACK).exists() or (data_dir / "postgres" / "PG_VERSION").exists()
    except OSError:
        return True


@asynccontextmanager
async def running(
    data_dir: Path, *, postgres_settings: Mapping[str, str] | None = None, restarts: bool = True
) -> AsyncIterator[Endpoints]:
    """In the block both servers run and answer. The end of the block, also by cancellation, stops them unless another
    process uses them; that takes at most STOP_SECONDS.

    `postgres_settings` override the defaults; they have no effect on servers that run already. `restarts`: whether a
    server that dies is started again; False for tests that kill one.

    Raises StartError (one line) when the servers are not installed, the folder can't be used, a server does not answer
    within START_SECONDS, or it dies more than MAX_RESTARTS times. SIGTERM or SIGHUP cancels the block, and SystemExit
    is raised once the servers have stopped.
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
    """In the block, SIGTERM and SIGHUP cancel `scope` instead of ending the process. Yields the list of those that
    came. An ignored signal stays ignored.

    A handler that is installed in the block (a node's, which drains first) has precedence. Does nothing outside of the
    main thread, where no handler can be installed.
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
    """Joins running servers and starts the others. `stack` is filled before any is started, so that the caller can stop
    them after a failure."""
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
    """The port to start on. Raises StartError when `wanted` is in use and the server may not move: clients have the
    address of a server that died."""
    port = free_port(wanted)
    if port != wanted and not may_move:
        raise StartError(f"{server.name} can't be started again: its port {wanted} was taken meanwhile")
    return port


async def _restart_dead_servers(stack: list[_Member], starting: int) -> None:
    """Restarts servers that die, on their old ports, for ever.

    Raises StartError when one does not start, or after MAX_RESTARTS restarts within RESTART_WINDOW_SECONDS.
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
    """Whether the server's process runs. For a server that another process started this is checked in a thread, since
    without /proc it needs a call of ps."""
    return not server.ended() or await trio.to_thread.run_sync(server.pid) is not None


def _log_tails(stack: list[_Member]) -> str:
    return "; ".join(f"{member.server.name}: {member.server.log_tail()}" for member in stack)


async def _ensure(stack: list[_Member], *, may_move: bool) -> None:
    """Launches servers that do not run, and returns once all answer. A server whose port another process has bound
    first is launched again."""
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
    """Waits for a file lock by polling: a thread that waits in flock could not be cancelled."""
    while not _try_lock(descriptor, kind):
        await trio.sleep(POLL_SECONDS)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
