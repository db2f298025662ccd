"""The load test does what it says on a real node, and points at nobody else's server."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import httpx
import pytest
import trio

from tests.conftest import execute
from tests.e2e.server_processes import ServerProcess, provision
from tests.load.figures import Times, refusal, table
from tests.load.run import ROOT, is_loopback, main, remove_from

HANG_SECONDS = 60  # seconds after which a test that hangs fails; nothing is measured
StartNode = Callable[..., ServerProcess]


def load(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.load", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


async def test_a_short_load_makes_a_report(start_node: StartNode, database_url: str, tmp_path: Path) -> None:
    """Users act and others watch for five seconds: accepted actions, push lags and refusals by kind are in the report,
    table and CSV.

    Removed, the users leave nothing behind, on the board either.
    """
    node = start_node(limits__user_per_minute="8")
    async with httpx.AsyncClient(base_url=node.url) as http:
        users = await provision(node, http, 6)
    tokens = tmp_path / "tokens"
    lines = [
        [user.user, user.token, user.session["actionSecret"], str(user.session["actionKeyVersion"])] for user in users
    ]
    tokens.write_text("".join("\t".join(line) + "\n" for line in lines))
    common = [
        "--url",
        node.url,
        "--tokens",
        str(tokens),
        "--output",
        str(tmp_path / "out"),
        "--users",
        "6",
        "--watchers",
        "4",
    ]
    done = load(*common, "--seconds", "5", "--rate", "120")
    assert done.returncode == 0, done.stderr + done.stdout
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert 6 <= summary["posts"]["count"] <= 48
    assert set(summary["refused"]) <= {"429 user"}, done.stdout
    assert (summary["connections"], summary["gaps"]) == (4, 0)
    for times in (summary["posts"], summary["lag"], summary["personal"]):
        assert times["count"]
        assert 0 <= times["p50_ms"] <= times["p99_ms"] <= times["max_ms"]
    assert "push lag, board" in done.stdout
    assert "push lag, board" in (tmp_path / "out" / "report.html").read_text()
    assert "push lag, board" in (tmp_path / "out" / "load_stats.csv").read_text()

    await remove_from(node.settings, [UUID(user.user) for user in users])
    async with httpx.AsyncClient(base_url=node.url) as http:
        with trio.fail_after(HANG_SECONDS):
            while (await http.get("/api/v1/scores/leaderboard")).json()["data"]["leaderboard"]:
                await trio.sleep(0.1)
    left = "EXISTS (SELECT FROM users) OR EXISTS (SELECT FROM username_skeletons) OR EXISTS (SELECT FROM action_logs)"
    execute(database_url, f"DO $$ BEGIN ASSERT NOT ({left}); END $$")


def test_other_machines_are_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """Without --anywhere an address that is not this machine's is refused before anything is sent there."""
    assert main(["--url", "http://scoreboard.test"]) == 2
    assert "--anywhere" in capsys.readouterr().err
    assert [is_loopback(url) for url in ("http://127.0.0.1:1", "http://[::1]:1", "http://localhost")] == [True] * 3
    assert [is_loopback(url) for url in ("http://10.0.0.1", "http://localhost.example", "127.0.0.1:8000", "")] == [
        False
    ] * 4


@pytest.mark.parametrize(
    "arguments", [["--users", "0"], ["--users", "10001"], ["--seconds", "841"], ["--rate", "0"], ["--watchers", "-1"]]
)
def test_users_and_time_are_bounded(arguments: list[str]) -> None:
    """Numbers out of bounds are wrong arguments."""
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2


def test_percentiles_are_those_of_the_times() -> None:
    """The share of times that a percentile covers is exact to a bin of 0.1 ms; without times there are none."""
    times = Times()
    assert times.percentile(0.5) is None
    for number in range(1, 101):
        times.add(number / 2)
    assert [times.percentile(share) for share in (0.01, 0.5, 0.99, 1.0)] == [0.5, 25.0, 49.5, 50.0]
    assert times.longest == 50.0


def test_refusals_are_told_by_kind_and_with_a_hint() -> None:
    """The layer of a 429 names it, else the code; the table counts each kind and says what to do about those that are
    known."""
    assert refusal(429, b'{"code": "RATE_LIMITED", "layer": "ip"}') == "429 ip"
    assert refusal(503, b'{"code": "SERVICE_UNAVAILABLE"}') == "503 SERVICE_UNAVAILABLE"
    assert [refusal(502, b"<html>"), refusal(0, b"")] == ["502", "no answer"]
    empty = Times().summary
    summary = {
        "seconds": 5,
        "posts": empty,
        "lag": empty,
        "personal": empty,
        "frames": 0,
        "bytes": 0,
        "gaps": 0,
        "connections": 0,
    }
    told = table({**summary, "refused": {"502": 1, "429 ip": 1234}})
    assert "1,234 × 429 ip, 1 × 502" in told
    assert "SCOREBOARD_LIMITS__IP_PER_MINUTE=0" in told
    assert "hint" not in table({**summary, "refused": {"502": 1}})
