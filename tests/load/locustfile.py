"""The users of a load test. Locust runs this; `tests.load.run` starts it with LOAD_PLAN naming a file that says how.

A Poster acts at its rate with a token of its own. A Watcher has a WebSocket, authenticated as one of the posters, and
measures how long each change took from the store's clock to its arrival: true on one machine, elsewhere as good as the
clocks agree.
"""

import json
import logging
import os
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count, cycle
from pathlib import Path
from typing import Any
from uuid import uuid4

import gevent  # type: ignore[import-untyped]
import websocket
from locust import User, events, task
from locust.contrib.fasthttp import FastHttpUser
from locust.env import Environment

from scoreboard.security.signatures import sign
from tests.load.figures import Figures, refusal

PLAN: dict[str, Any] = json.loads(Path(os.environ["LOAD_PLAN"]).read_text())
# userId, accessToken, actionSecret, keyVersion
TOKENS = [line.split("\t") for line in Path(PLAN["tokens"]).read_text().splitlines()]
PROGRESS_SECONDS = 2.0  # between two lines
AGAIN_SECONDS = 2.0  # at most, before a watcher comes back after a close
OPEN_SECONDS = 10.0  # for a handshake
QUIET_SECONDS = 60.0  # the server pings every 20 s

ACTION = "/api/v1/scores/action"
LIVE = "/api/v1/scores/live"
SUBSCRIBE = {"action": "subscribe", "channel": "leaderboard"} | (
    {} if PLAN["mode"] == "full" else {"mode": PLAN["mode"]}
)
DIFFICULTIES = ("easy", "medium", "hard")

figures = Figures()
posters = count()
watchers: Iterator[list[str]] = cycle(TOKENS)


class Poster(FastHttpUser):
    """Finishes tasks: the one action without a cooldown."""

    fixed_count = PLAN["users"]
    connection_timeout = network_timeout = OPEN_SECONDS

    def on_start(self) -> None:
        _, token, secret, version = TOKENS[next(posters) % len(TOKENS)]
        self.secret, self.version = secret.encode(), version
        self.fields = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        self.pace = 60 / PLAN["rate"]  # seconds
        gevent.sleep(random.uniform(0, self.pace))  # so that they don't act in step
        self.due = time.monotonic()

    def wait_time(self) -> float:
        """Until the next action is due, however long the last one took."""
        self.due = max(self.due + self.pace, time.monotonic() - self.pace)
        return max(0.0, self.due - time.monotonic())

    @task
    def act(self) -> None:
        action = {
            "actionId": str(uuid4()),
            "actionType": "task_finish",
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "metadata": {"difficulty": random.choice(DIFFICULTIES), "timeSpent": random.randint(5, 600)},
        }
        body = json.dumps(action)
        headers = self.fields | {"x-action-signature": f"v{self.version}.{sign(self.secret, body.encode())}"}
        begun = time.perf_counter()
        with self.client.post(ACTION, data=body, headers=headers, catch_response=True) as answer:
            took = (time.perf_counter() - begun) * 1000
            if answer.status_code == 200:
                figures.posts.add(took)
                return
            kind = refusal(answer.status_code or 0, answer.content or b"")
            figures.refused[kind] += 1
            answer.failure(kind)


class Watcher(User):
    """Watches, and comes back whenever it is cut off."""

    fixed_count = PLAN["watchers"]

    def on_start(self) -> None:
        self.token = next(watchers)[1]
        self.url = str(self.environment.host).replace("http", "ws", 1).rstrip("/") + LIVE
        self.socket: websocket.WebSocket | None = None

    def on_stop(self) -> None:
        if self.socket is not None:
            self.socket.shutdown()  # type: ignore[no-untyped-call]

    @task
    def watch(self) -> None:
        """One connection, from its opening to its end."""
        try:
            self.socket = websocket.create_connection(self.url, timeout=OPEN_SECONDS)
            self.socket.settimeout(QUIET_SECONDS)
            for message in ({"action": "auth", "token": self.token}, SUBSCRIBE):
                self.socket.send(json.dumps(message))
            figures.connections += 1
            end = self._follow(self.socket)
        except websocket.WebSocketBadStatusException as exc:
            end = refusal(exc.status_code, exc.resp_body or b"")
        except (websocket.WebSocketException, OSError) as exc:
            end = f"lost ({type(exc).__name__})"
        if self.socket is not None:
            self.socket.shutdown()  # type: ignore[no-untyped-call]
            self.socket = None
        figures.refused[end] += 1
        self._fire("connection", 0, 0, RuntimeError(end))
        gevent.sleep(random.uniform(0, AGAIN_SECONDS))

    def _follow(self, socket: websocket.WebSocket) -> str:
        """Reads to the end; how it ended."""
        position = ""
        while True:
            opcode, data = socket.recv_data(control_frame=True)  # answers pings by itself
            now = time.time()
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return f"close {int.from_bytes(data[:2], 'big')}" if data else "close"
            if opcode != websocket.ABNF.OPCODE_TEXT:
                continue
            figures.frames += 1
            figures.bytes += len(data)
            message = json.loads(data)
            content = message.get("data", {})
            if message["event"] in {"leaderboard:update", "leaderboard:delta"}:
                figures.gaps += bool(position) and content.get("previousPosition", position) != position
                if position and content["position"] != position:  # the first one is as old as the board
                    self._lag("board", content["timestamp"], now, len(data))
                position = content["position"]
            elif message["event"] == "score:personal":
                self._lag("personal", content["timestamp"], now, len(data))

    def _lag(self, name: str, timestamp: str, now: float, size: int) -> None:
        lag = max(0.0, (now - datetime.fromisoformat(timestamp).timestamp()) * 1000)
        (figures.lag if name == "board" else figures.personal).add(lag)
        self._fire(f"push lag, {name}", lag, size)

    def _fire(self, name: str, milliseconds: float, size: int, exception: Exception | None = None) -> None:
        self.environment.events.request.fire(
            request_type="WS",
            name=name,
            response_time=milliseconds,
            response_length=size,
            exception=exception,
            context={},
        )


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def begin(environment: Environment, **_: object) -> None:
    """Tells every two seconds how it goes, and at the end writes what it was."""
    begun = time.monotonic()
    logging.getLogger("locust.stats_logger").disabled = True  # its tables of the end; `tests.load.run` prints ours

    def print_progress() -> None:
        while True:
            gevent.sleep(PROGRESS_SECONDS)
            users = environment.runner.user_count if environment.runner else 0
            print(figures.progress(time.monotonic() - begun, users), flush=True)

    printing = gevent.spawn(print_progress)

    @environment.events.test_stop.add_listener  # type: ignore[untyped-decorator]
    def end(**_: object) -> None:
        printing.kill()
        summary = figures.summary(time.monotonic() - begun)
        (Path(PLAN["output"]) / "summary.json").write_text(json.dumps(summary, indent=1))
