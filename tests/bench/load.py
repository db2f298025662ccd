"""Signs actions beforehand and has them sent: by wrk, or where there is none by tests/bench/client.py.

Both send bytes that were made before the clock starts, so that the sender takes as little as possible of the cores that
it shares with the servers. Both wait for the last answer, so what was sent, what was answered and what the database
holds can be compared to the last action.
"""

import hmac
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import msgspec
import trio

ACTION_TYPE, METADATA, POINTS = (
    "task_finish",
    {"difficulty": "medium", "timeSpent": 120},
    50,
)  # the type without a cooldown in config/actions.toml
ACTION_PATH, BOARD_PATH = "/api/v1/scores/action", "/api/v1/scores/leaderboard"
DRAIN = 3  # seconds that are left for the last answers once nothing more is sent; a p99 is far below one
LENGTH = 5  # digits of a record's length in the file


class Actor(msgspec.Struct, frozen=True):
    """A user who can complete actions: an access token, and the secret that signs them."""

    user_id: str
    token: str
    secret: str


class Load(msgspec.Struct, frozen=True):
    """What a sender saw. `refused`: answers of status 400 and above. `idle`: connections with nothing under way at the
    end."""

    sent: int
    idle: int
    answered: int
    refused: int
    broken: int
    seconds: float
    p50_us: float
    p99_us: float

    @property
    def accepted(self) -> int:
        return self.answered - self.refused

    @property
    def per_second(self) -> float:
        return self.accepted / self.seconds


# ---- pure: bytes -----------------------------------------------------------------------------------------------------


def action_body(action_id: str, now: datetime, action_type: str = ACTION_TYPE) -> bytes:
    timestamp = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps(
        {"actionId": action_id, "actionType": action_type, "timestamp": timestamp, "metadata": METADATA},
        separators=(",", ":"),
    ).encode()


def sign(actor: Actor, body: bytes) -> str:
    return hmac.digest(actor.secret.encode(), body, "sha256").hex()


def requests(actors: Sequence[Actor], run: str, count: int, port: int, now: datetime) -> Iterator[bytes]:
    """`count` signed requests with ids of their own.

    Who acts is drawn by lot, the same lot for every server: users meet in a batch as they would.
    """
    heads = [
        f"POST {ACTION_PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {actor.token}\r\n"
        "Content-Type: application/json\r\nX-Action-Signature: ".encode()
        for actor in actors
    ]
    before, _, after = action_body("\0", now).partition(json.dumps("\0").encode())
    for number, chosen in enumerate(random.Random(run).choices(range(len(actors)), k=count)):
        body = b'%b"%b-%d"%b' % (before, run.encode(), number, after)
        yield b"%b%b\r\nContent-Length: %d\r\n\r\n%b" % (
            heads[chosen],
            sign(actors[chosen], body).encode(),
            len(body),
            body,
        )


def records(wire: Iterator[bytes]) -> Iterator[bytes]:
    """The file's form: each request behind its length."""
    for data in wire:
        yield b"%0*d" % (LENGTH, len(data))
        yield data


# ---- I/O: sends ------------------------------------------------------------------------------------------------------


def sender() -> str:
    """Who sends on this machine: its name for the report."""
    return "wrk" if shutil.which("wrk") else "tests/bench/client.py"


@contextmanager
def in_memory(wire: Iterator[bytes]) -> Iterator[Path]:
    """A file of records in memory, by a path that a child can open: on a disk, writing it out would slow the commits
    that are measured."""
    with os.fdopen(os.memfd_create("requests"), "wb") as file:
        file.writelines(records(wire))
        file.flush()
        yield Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")


async def send(port: int, connections: int, seconds: float, *, replay: Path | None) -> Load:
    """Sends for `seconds`, or until the file is at its end, and returns when every answer is there. Without a file:
    reads the leaderboard.

    Cancelling it ends the sender. Raises RuntimeError when the sender fails or an answer is missing at the end.
    """
    address = f"http://127.0.0.1:{port}{BOARD_PATH}"
    if wrk := shutil.which("wrk"):
        duration = int(seconds) + 1 + DRAIN
        script = str(Path(__file__).with_name("replay.lua"))
        command = [wrk, "-t1", f"-c{connections}", f"-d{duration}s", "--timeout", "30s", "-s", script, address]
    else:
        command = [sys.executable, "-m", "tests.bench.client", str(port), str(connections)]
    environ = os.environ | {"SECONDS": str(seconds)}
    environ.pop("REPLAY", None)
    if replay:
        environ["REPLAY"] = str(replay)
    done = await trio.run_process(command, env=environ, capture_stdout=True, stderr=subprocess.STDOUT, check=False)
    output = done.stdout.decode(errors="replace")
    if done.returncode != 0 or '{"sent"' not in output:
        raise RuntimeError(f"the sender failed ({done.returncode}):\n{output}")
    load = msgspec.json.decode(output[output.index('{"sent"') :], type=Load)
    if load.broken or load.answered != load.sent or load.idle != connections:
        raise RuntimeError(f"not every request was answered: {load}")
    return load
