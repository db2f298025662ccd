"""Starts a load test and tells how it went.

The target is this machine's unless --anywhere is given: a load test is no toy to point at other people's servers.
Defaults keep below the limits of a server as it comes (1,000 requests a minute from one address, 10 actions a minute
and user, 300 live connections).
"""

import argparse
import ipaddress
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import trio

from scoreboard.domain.errors import ScoreboardError
from scoreboard.settings.model import Settings, load_settings
from scoreboard.storage.start_stores import start_stores
from tests.load.figures import table

ROOT = Path(__file__).parent.parent.parent
USERS, MOST_USERS = 100, 10_000
WATCHERS, MOST_WATCHERS = 50, 5_000  # one process reads for all of them
SECONDS, MOST_SECONDS = 60, 840  # the tokens live for 15 minutes
RATE, HIGHEST_RATE = 6.0, 600.0  # actions a minute and user
SPAWN_RATE = 100.0  # users begun a second, or more if a quarter of the run would not do for all of them
REMOVED_AT_ONCE = 20  # users a statement; each may have thousands of actions, and a statement has 2.5 s
REMOVAL_SQL = (
    "DELETE FROM username_skeletons WHERE user_id = ANY($1::uuid[])",
    "DELETE FROM users WHERE id = ANY($1::uuid[])",
)
SPARE_SECONDS = 60  # beyond the run's time until Locust is taken for stuck


def main(argv: Sequence[str]) -> int:
    """0: done and something was accepted; 1: it could not be done, or nothing was; 2: wrong arguments."""
    options = arguments(argv)
    if not (options.anywhere or is_loopback(options.url)):
        print(f"{options.url} is not this machine: --anywhere if the server is yours", file=sys.stderr)
        return 2
    if not is_ready(options.url):
        print(f"no server is ready at {options.url}; start one with scripts/run", file=sys.stderr)
        return 1
    options.output.mkdir(parents=True, exist_ok=True)
    report = options.output / "summary.json"
    report.unlink(missing_ok=True)
    with TemporaryDirectory(prefix="scoreboard-load-") as folder:  # mode 0700: tokens are secrets
        tokens = options.tokens or make_tokens(Path(folder) / "tokens", options.users, options.data_dir)
        if tokens is None:
            return 1
        try:
            run_locust(options, Path(folder), tokens)
        finally:
            if tokens != options.tokens:
                remove_users(tokens, options.data_dir)
    if not report.exists():
        print("Locust ended without a report", file=sys.stderr)
        return 1
    summary = json.loads(report.read_text())
    print(f"\n{table(summary)}\nreport: {options.output / 'report.html'}")
    return 0 if summary["posts"]["count"] else 1


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/load", description="Load on a running server: users that act and users that watch."
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the server  [%(default)s]")
    parser.add_argument("--anywhere", action="store_true", help="allow a server that is not on this machine")
    parser.add_argument("--users", type=bounded(1, MOST_USERS), default=USERS, help="who act  [%(default)s]")
    parser.add_argument(
        "--watchers", type=bounded(0, MOST_WATCHERS), default=WATCHERS, help="who watch over WebSocket  [%(default)s]"
    )
    parser.add_argument("--seconds", type=bounded(1, MOST_SECONDS), default=SECONDS, help="how long  [%(default)s]")
    parser.add_argument("--rate", type=rate, default=RATE, help="actions a minute of each user  [%(default)s]")
    parser.add_argument(
        "--mode", choices=("full", "delta"), default="full", help="what watchers ask for  [%(default)s]"
    )
    parser.add_argument(
        "--data-dir", type=Path, default=ROOT / ".data", help="the server's data folder, for the users' tokens  [.data]"
    )
    parser.add_argument(
        "--tokens", type=Path, help="a file of `scoreboard users tokens` instead, of a server with stores of its own"
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / ".data" / "load", help="where the report goes  [.data/load]"
    )
    return parser.parse_args(argv)


def bounded(low: int, high: int) -> Callable[[str], int]:
    """An argument's type: a whole number in these bounds."""

    def number(text: str) -> int:
        if not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"must be {low} to {high:,}")
        return int(text)

    return number


def rate(text: str) -> float:
    value = float(text)
    if not 0 < value <= HIGHEST_RATE:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most {HIGHEST_RATE:.0f}")
    return value


def is_loopback(url: str) -> bool:
    """Whether an address can only mean this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_ready(url: str) -> bool:
    try:
        own = is_loopback(url)  # no proxy leads to this machine
        return httpx.get(f"{url.rstrip('/')}/readyz", timeout=5, trust_env=not own).status_code == httpx.codes.OK
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


def make_tokens(file: Path, number: int, data_dir: Path) -> Path | None:
    """So many users of the server on this data folder; None when that can't be, and then the reason was printed."""
    command = [sys.executable, "-m", "scoreboard", "users", "tokens", "--count", str(number), "--output", str(file)]
    made = subprocess.run([*command, "--data-dir", str(data_dir.absolute())], cwd=ROOT, check=False)
    return file if made.returncode == 0 else None


def remove_users(tokens: Path, data_dir: Path) -> None:
    """Deletes the users that `make_tokens` made. Says so if that can't be."""
    users = [UUID(line.split("\t")[0]) for line in tokens.read_text().splitlines()]
    settings = load_settings(
        None, {"embedded.enabled": True, "embedded.data_dir": str(data_dir.absolute())}, os.environ
    )
    try:
        trio.run(remove_from, settings, users)
    except* (ScoreboardError, OSError) as group:
        print(f"the load test's users (load-…) could not be removed: {group.exceptions[0]}", file=sys.stderr)


async def remove_from(settings: Settings, users: Sequence[UUID]) -> None:
    """Deletes users from the stores of a server, with all that they did. Its boards follow by themselves."""
    async with start_stores(settings) as stores:
        for start in range(0, len(users), REMOVED_AT_ONCE):
            for statement in REMOVAL_SQL:
                await stores.execute(statement, users[start : start + REMOVED_AT_ONCE])


def run_locust(options: argparse.Namespace, folder: Path, tokens: Path) -> None:
    """Returns when it has ended. Ctrl-C ends the load early, and the report is made all the same."""
    output = options.output.absolute()
    plan = {"tokens": str(tokens.absolute()), "output": str(output)}
    plan |= {"users": options.users, "watchers": options.watchers, "rate": options.rate, "mode": options.mode}
    (folder / "plan.json").write_text(json.dumps(plan))
    total = options.users + options.watchers
    spawn_rate = max(SPAWN_RATE, total / (options.seconds / 4))
    command = [
        sys.executable,
        "-m",
        "locust",
        "--locustfile",
        "tests/load/locustfile.py",
        "--headless",
        "--host",
        options.url.rstrip("/"),
    ]
    command += [
        "--users",
        str(total),
        "--spawn-rate",
        f"{spawn_rate:.1f}",
        "--run-time",
        f"{options.seconds}s",
        "--only-summary",
    ]
    command += [
        "--html",
        str(output / "report.html"),
        "--csv",
        str(output / "load"),
        "--loglevel",
        "WARNING",
        "--exit-code-on-error",
        "0",
    ]
    no_proxy = {"NO_PROXY": "*", "no_proxy": "*"} if is_loopback(options.url) else {}
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | no_proxy | {"LOAD_PLAN": str(folder / "plan.json")})
    try:
        process.wait(options.seconds + SPARE_SECONDS)
    except KeyboardInterrupt:
        process.wait(SPARE_SECONDS)  # the terminal has told it too
    finally:
        process.kill()  # nothing if it has ended
        process.wait()
