"""What an operator meets: signals, closed terminals, stores that die, logs that nobody reads, proxies, and starts that
can't go on."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from scoreboard.cli import demo
from scoreboard.embedded import stack as embedded
from scoreboard.embedded.process import command_of
from tests.e2e.conftest import LiveServer
from tests.e2e.server_processes import ServerProcess, free_port

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"

HANG_SECONDS = 120  # seconds after which a test that hangs fails; nothing is measured
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("SCOREBOARD_")}
PROXIES = {
    "ALL_PROXY": "socks5://127.0.0.1:1",
    "HTTP_PROXY": "http://127.0.0.1:1",
    "http_proxy": "http://127.0.0.1:1",
    "NO_PROXY": "",
}


def servers_of(folder: Path) -> list[int]:
    """Processes of the folder's PostgreSQL and Valkey that live."""
    mark = json.loads((folder / embedded.STACK).read_text())["mark"]
    return [
        pid
        for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        if mark in command_of(pid)
    ]


def until(condition: Callable[[], Any]) -> Any:
    """The first true value of `condition`; an HTTP error is none."""
    deadline = time.monotonic() + HANG_SECONDS
    while time.monotonic() < deadline:
        try:
            if found := condition():
                return found
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError("it does not come")


class Embedded:
    """`scoreboard serve` on servers of its own. Its standard output is a pipe that is read when a test asks."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.http = httpx.Client(base_url=f"http://[::1]:{self.port}", trust_env=False, timeout=HANG_SECONDS)

    def start(self, *, hangups_ignored: bool = False, **settings: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "scoreboard", "serve", "--embedded", "--data-dir", str(self.folder)]
        if hangups_ignored:
            command = ["nohup", *command]
        self.process = subprocess.Popen(
            [*command, "--host", "::1", "--port", str(self.port)],
            env=CLEAN | PROXIES | {f"SCOREBOARD_{name.upper()}": value for name, value in settings.items()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        return self.process

    def stop(self) -> None:
        """Ends whatever is left."""
        self.http.close()
        if self.process:
            self.process.kill()  # nothing if it has ended
            self.process.communicate()
        for pid in servers_of(self.folder):
            os.kill(pid, signal.SIGKILL)

    def read(self) -> list[dict[str, Any]]:
        """The lines that are in the pipe now."""
        assert self.process
        assert self.process.stdout
        descriptor, found = self.process.stdout.fileno(), b""
        os.set_blocking(descriptor, False)
        while True:
            try:
                part = os.read(descriptor, 1 << 20)
            except BlockingIOError:
                part = b""
            if not part:
                return [json.loads(line) for line in found.splitlines()]
            found += part

    def rows(self) -> list[Any]:
        answer = self.http.get("/api/v1/scores/leaderboard?limit=100")
        return list(answer.json()["data"]["leaderboard"]) if answer.status_code == 200 else []

    def condition(self) -> dict[str, str]:
        return dict(self.http.get("/readyz").json()["stores"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    made = Embedded(tmp_path_factory.mktemp("operated") / "data")
    made.start(hangups_ignored=True, log__access="all", log__format="json", limits__ip_per_minute="0")
    yield made
    made.stop()


def test_the_demo_finds_its_node(server: Embedded) -> None:
    """On ::1, with proxies in the environment that lead nowhere, all demo players open the board; the log-in is told in
    a line of JSON."""
    lines: list[dict[str, Any]] = []

    def is_open() -> bool:
        lines.extend(server.read())
        return len(server.rows()) >= len(demo.HANDLES) - 1

    until(is_open)
    (live,) = [line for line in lines if line["event"] == "live"]
    assert f"http://[::1]:{server.port} log in as {demo.LOGIN} with the password {demo.PASSWORD}" in live["message"]
    acted = [line for line in lines if line.get("route") == "/api/v1/scores/action" and line["status"] == 200]
    assert acted
    assert all(line["user"] and line["address"] == "::1" and line["method"] == "POST" for line in acted)


def test_a_log_that_nobody_reads_stops_nothing(server: Embedded) -> None:
    """A thousand lines that a full pipe does not take: all requests are answered; read again, each line is JSON and one
    counts the lost."""
    assert {server.http.get("/livez", headers={"x-request-id": "x" * 128}).status_code for _ in range(1000)} == {200}
    figures = server.http.get("/metrics").text
    lost = next(
        float(line.split()[1]) for line in figures.splitlines() if line.startswith("scoreboard_log_lines_lost_total")
    )
    assert lost > 0
    assert "/livez" in {line.get("route") for line in server.read()}
    server.http.get("/livez")
    (told,) = [line for line in server.read() if line["event"] == "log_lines_lost"]
    assert told["count"] >= lost


def test_durations_are_measured_by_route_and_class(server: Embedded) -> None:
    """Fast and slow routes, and what is no route, are in the histogram of /metrics."""
    for path in ("/livez", "/nowhere", "/api/v1/users/me"):
        server.http.get(path)
    figures = server.http.get("/metrics").text
    for labels in (
        'route="/livez",status="2xx"',
        'route="other",status="4xx"',
        'route="/api/v1/users/me",status="4xx"',
    ):
        assert f"scoreboard_http_request_seconds_count{{{labels}}}" in figures


def test_a_store_that_dies_is_started_again(server: Embedded) -> None:
    """kill -9 of PostgreSQL, then of Valkey: each is up again at its address, and the board has all its rows."""
    before = server.rows()
    for store, file in (("postgresql", "postgres/postmaster.pid"), ("redis", "valkey/valkey.pid")):
        pid = int((server.folder / file).read_text().split("\n")[0])
        os.kill(pid, signal.SIGKILL)
        until(lambda store=store: server.condition()[store] == "down")  # type: ignore[misc]
        until(lambda store=store: server.condition()[store] == "up")  # type: ignore[misc]
        assert int((server.folder / file).read_text().split("\n")[0]) != pid
    assert len(until(server.rows)) == len(before)
    assert [line["server"] for line in server.read() if line["event"] == "embedded_server_restarted"] == [
        "PostgreSQL",
        "Valkey",
    ]


def test_an_ignored_hangup_stays_ignored(server: Embedded) -> None:
    """Under nohup a closed terminal is nothing; SIGTERM then ends node and stores, exit 0."""
    process = server.process
    assert process
    process.send_signal(signal.SIGHUP)
    assert server.http.get("/livez").status_code == 200
    assert not [line for line in server.read() if line["event"] == "shutdown_started"]
    process.terminate()
    assert process.wait(HANG_SECONDS) == 0
    assert servers_of(server.folder) == []


def test_a_hangup_while_it_starts_stops_the_stores(server: Embedded) -> None:
    """A terminal that is closed before the node serves leaves nothing running."""
    if server.process:
        server.process.communicate()
    process = server.start(log__format="json")
    until(lambda: servers_of(server.folder))
    process.send_signal(signal.SIGHUP)
    process.wait(HANG_SECONDS)
    assert servers_of(server.folder) == []


def test_a_hangup_drains(start_node: Callable[..., ServerProcess]) -> None:
    """A closed terminal, whose shell sends SIGHUP once more, is a SIGTERM: the node takes its leave in order, exit
    0."""
    node = start_node()
    assert node.process
    for _ in range(2):
        node.process.send_signal(signal.SIGHUP)
        time.sleep(0.1)  # two signals at once would be one
    assert node.process.wait(HANG_SECONDS) == 0
    events = [json.loads(line)["event"] for line in node.log.read_text().splitlines()]
    assert "shutdown_started" in events
    assert "shutdown_forced" not in events


# ---- starts that can't go on -----------------------------------------------------------------------------------------


def command(*arguments: str, **settings: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    environment = CLEAN | {f"SCOREBOARD_{name.upper()}": value for name, value in settings.items()}
    done = subprocess.run(
        [sys.executable, "-m", "scoreboard", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def assert_one_line(outcome: tuple[int, str, str], *words: str) -> None:
    code, out, err = outcome
    assert code == 2, err
    assert err.count("\n") == 1
    assert err.startswith("scoreboard: ")
    assert all(word in err for word in words), err
    assert "Traceback" not in out


def test_a_port_that_is_taken(server: Embedded, database_url: str, redis_url: str, tmp_path: Path) -> None:
    """One line names address and port, and the log has no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        stores = {"postgres__url": database_url, "redis__url": redis_url, "embedded__data_dir": str(tmp_path)}
        assert_one_line(command("serve", "--port", port, **stores), f"127.0.0.1:{port}", "Address already in use")


# ---- scripts and README ----------------------------------------------------------------------------------------------


def test_an_unsupported_python_is_one_line(tmp_path: Path) -> None:
    """Where the only Python is a later one, scripts/run says in one line which to install and how, and installs
    nothing."""
    (tmp_path / "scripts").mkdir()
    for name in ("run", "install"):
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts")
    for name in ("pyproject.toml", "config/requirements/server.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "cat", "cksum", "dirname", "env", "grep", "mktemp"):
        (programs / name).symlink_to(shutil.which(name) or "")
    pretended = (
        "import sys, platform; sys.version_info = (3, 14, 0); platform.python_version = lambda: '3.14.0'; "
        "exec(sys.argv[1])"
    )
    (programs / "python3").write_text(f'#!/bin/bash\nexec {sys.executable} -c "{pretended}" "$2"\n')
    (programs / "python3").chmod(0o755)
    done = subprocess.run(
        [tmp_path / "scripts" / "run"],
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "found Python 3.14.0: install one" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_the_readme_by_curl(live_server: LiveServer) -> None:
    """The API by example works as written, with curl 7.68 and without /proc: an action counts, and the board has it."""
    text = README.read_text()
    section = text[text.index("## The API by example") :]
    (script,) = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)[:1]
    assert "127.0.0.1:8000" in script
    assert not re.search(r"--json|/proc/|date .*-d|uuidgen", script)
    script = script.replace("http://127.0.0.1:8000", live_server.url).replace("curl -s ", "curl -s --noproxy '*' ")
    done = subprocess.run(
        ["bash", "-eu", "-c", script], capture_output=True, text=True, timeout=HANG_SECONDS, check=True
    )
    decoder, answers = json.JSONDecoder(), list[tuple[Any, int]]()
    while rest := done.stdout.strip()[sum(answers_length for _, answers_length in answers) :].strip():
        answers.append(decoder.raw_decode(rest))
    (acted, _), (board, _) = answers
    assert acted["data"]["pointsAwarded"] > 0
    assert board["data"]["currentUser"]["score"] == acted["data"]["newScore"]
