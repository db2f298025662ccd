"""Starts, identifies and stops one server process of the embedded stack. Independent of PostgreSQL and Valkey (see
servers).

A process is identified by a random word on its command line, never by its pid alone, since pids are used again. When
this process is root, the server runs as an account without rights, which may have no access to the parent folders. Then
the server gets its data folder as an open descriptor (/proc/self/fd/N). Tested by tests/embedded/test_stack.py.
"""

import os
import pwd
import signal
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from scoreboard.domain.errors import StartError

ACCOUNTS = ("postgres", "nobody")  # tried in this order when we are root
POLL_SECONDS = 0.02  # between two checks of a server that starts or stops; a cold start takes about half a second
MAX_LOG_TAIL_BYTES = 2000  # of a server's log in an error message: its last lines
MAX_LOG_BYTES = 4 * 2**20  # a larger log is truncated at the next start
# A server must not inherit PGDATA, LD_PRELOAD, proxies, …
ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath}


@dataclass(frozen=True, slots=True)
class Account:
    """The account that the servers run as. Without a uid: that of this process."""

    uid: int | None = None
    gid: int | None = None
    name: str = ""

    def popen(self) -> dict[str, Any]:
        """The arguments for subprocess.Popen."""
        return {} if self.uid is None else {"user": self.uid, "group": self.gid, "extra_groups": []}

    def chown(self, path: Path, mode: int) -> None:
        path.chmod(mode)
        if self.uid is not None:
            os.chown(path, self.uid, -1 if self.gid is None else self.gid)


def account_for(data: Path) -> Account:
    """The account for the servers of a data folder. For root: the owner of existing data, else the first of ACCOUNTS
    that exists. Raises StartError."""
    if os.geteuid() != 0:
        if data.exists() and data.stat().st_uid != os.geteuid():
            raise StartError(
                f"{data} belongs to another account (uid {data.stat().st_uid}): start as that one or as root, "
                "or name another data folder"
            )
        return Account()
    if data.exists() and (uid := data.stat().st_uid) != 0:
        return Account(uid, data.stat().st_gid, f"uid {uid}")
    for name in ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(entry.pw_uid, entry.pw_gid, name)
    raise StartError(
        f"PostgreSQL refuses to run as root, and there is no account {' or '.join(ACCOUNTS)} to run it as: "
        "start as another user"
    )


class Folder:
    """The name of a folder for a child process. For root it is an open descriptor, since the child's account may have
    no access to the parent folders."""

    NAME = "\0folder"  # placeholder in a command; no real argument can contain a NUL

    def __init__(self, path: Path) -> None:
        self._path = path
        self._name = str(path)
        self.descriptors: tuple[int, ...] = ()

    def __enter__(self) -> "Folder":
        if os.geteuid() == 0 and Path("/proc/self/fd").exists():
            self.descriptors = (os.open(self._path, os.O_RDONLY | os.O_DIRECTORY),)
            self._name = f"/proc/self/fd/{self.descriptors[0]}"
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)

    def fill(self, command: Sequence[str | Path]) -> list[str]:
        return [str(part).replace(self.NAME, self._name) for part in command]


@dataclass(slots=True)
class Server:
    """PostgreSQL or Valkey. `mark` is the random word on its command line."""

    name: str  # as in messages
    data: Path  # its folder; the log is beside it
    pid_file: str  # in the folder
    mark: str
    account: Account
    stop_signals: tuple[tuple[signal.Signals, float], ...]  # what to send, and the seconds to wait before the next
    child: subprocess.Popen[bytes] | None = None  # if this process started it

    @property
    def log(self) -> Path:
        return self.data.with_suffix(".log")

    def pid(self) -> int | None:
        """The pid of the process that serves `data`; None if it has ended, also when another process has its pid."""
        pid = self._noted_pid()
        return pid if pid and self.mark in command_of(pid) else None

    def _noted_pid(self) -> int:
        try:
            return int((self.data / self.pid_file).read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return 0

    def launch(self, command: Sequence[str | Path]) -> None:
        """Starts the server in a session of its own. So Ctrl-C on a terminal does not reach it, and it outlives this
        process' last commit.

        Raises StartError if another server uses the folder, or if the server can't be started.
        """
        pid = self._noted_pid()
        program = Path(command[0]).name
        if pid and Path(command_of(pid).split(" ", 1)[0]).name == program:
            raise StartError(
                f"another {self.name} (process {pid}) serves {self.data}: stop it, or name another data folder"
            )
        # left by a killed process; PostgreSQL would refuse to start if another process has its pid
        (self.data / self.pid_file).unlink(missing_ok=True)
        fresh = not self.log.exists() or self.log.stat().st_size > MAX_LOG_BYTES
        try:
            with self.log.open("wb" if fresh else "ab") as log, Folder(self.data) as folder:
                self.log.chmod(0o600)
                self.child = subprocess.Popen(
                    folder.fill(command),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=ENVIRONMENT,
                    cwd="/",
                    start_new_session=True,
                    pass_fds=folder.descriptors,
                    **self.account.popen(),
                )
        except (OSError, subprocess.SubprocessError) as exc:
            raise StartError(
                f"{self.name} can't be started{f' as {self.account.name}' if self.account.name else ''}: {exc}"
            ) from exc

    def ended(self) -> bool:
        """Whether no child runs: this process started none, or it has ended."""
        if self.child is not None and self.child.poll() is not None:
            self.child = None
        return self.child is None

    async def stop(self) -> None:
        """Sends one stop signal after the other until the server has ended. Takes at most the sum of their seconds."""
        for number, seconds in self.stop_signals:
            pid = self.pid() or (None if self.ended() or self.child is None else self.child.pid)
            if pid is None:
                return
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return
            with trio.move_on_after(seconds):
                while self.pid() is not None or not self.ended():
                    await trio.sleep(POLL_SECONDS)

    def detach(self) -> None:
        """Leaves the server running for other processes, without Python's warning about a running child."""
        if self.child is not None:
            self.child.returncode = 0
            self.child = None

    def log_tail(self) -> str:
        """The end of the server's log in one line."""
        try:
            lines = self.log.read_bytes()[-MAX_LOG_TAIL_BYTES:].decode(errors="replace").splitlines()
        except OSError:
            return "no log"
        return " | ".join(line.strip() for line in lines[-6:]) or "empty log"


def command_of(pid: int) -> str:
    """A process' command line; "" if there is no process with this pid, or only a zombie."""
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    ps = ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)]  # a system without /proc
    return subprocess.run(ps, capture_output=True, text=True, check=False, timeout=10).stdout


def free_port(wanted: int = 0) -> int:
    """`wanted` if it can be bound now, else another free port. Another process may bind it before the server does; then
    the caller tries again."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise StartError("no free port on 127.0.0.1")
