"""What is sent, and that it is counted to the last: `tests/bench/load.py`, `client.py`, `replay.lua`."""

import hashlib
import hmac
import json
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.bench import client, load
from tests.bench.load import Actor

ACTORS = [Actor("user-1", "token-1", "secret-1"), Actor("user-2", "token-2", "secret-2")]
NOW = datetime(2026, 1, 10, 10, 30, tzinfo=UTC)
COUNT = 300


class ResponseWriter(BaseHTTPRequestHandler):
    """Takes every action; each tenth is refused. Remembers what came."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        key = self.headers["Authorization"].replace("Bearer token", "secret").encode()
        signed = hmac.new(key, body, hashlib.sha256).hexdigest() == self.headers["X-Action-Signature"]
        action_id = json.loads(body)["actionId"]
        self.server.seen[action_id] += signed  # type: ignore[attr-defined]
        self.send_response(429 if action_id.endswith("0") else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_request(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), ResponseWriter) as made:
        made.daemon_threads = True
        made.seen = Counter()  # type: ignore[attr-defined]
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def wire(port: int) -> Iterator[bytes]:
    return load.requests(ACTORS, "run", COUNT, port, NOW)


def test_each_request_is_an_action_of_its_own_signed_by_its_actor() -> None:
    """No two share an id, and the signature is that of the bytes that are sent."""
    made = list(wire(80))
    heads, bodies = zip(*(data.split(b"\r\n\r\n") for data in made), strict=True)
    assert len({json.loads(body)["actionId"] for body in bodies}) == COUNT
    for head, body in zip(heads, bodies, strict=True):
        actor = ACTORS[0] if b"Bearer token-1" in head else ACTORS[1]
        assert f"X-Action-Signature: {hmac.new(actor.secret.encode(), body, 'sha256').hexdigest()}".encode() in head
        assert json.loads(body)["timestamp"] == "2026-01-10T10:30:00.000Z"
    assert {b"Bearer token-1" in head for head in heads} == {True, False}


def test_the_own_client_counts_every_answer(server: ThreadingHTTPServer) -> None:
    """Each request goes out once; what was sent, answered and refused is what the server saw."""
    port = server.server_port
    with load.in_memory(wire(port)) as file:
        got = client.run(port, 4, 5.0, client.stored(file))
    assert (got["sent"], got["answered"], got["refused"], got["idle"], got["broken"]) == (
        COUNT,
        COUNT,
        COUNT // 10,
        4,
        0,
    )
    assert server.seen == Counter({f"run-{n}": 1 for n in range(COUNT)})  # type: ignore[attr-defined]


async def test_the_sender_counts_every_answer(server: ThreadingHTTPServer) -> None:
    """The same of whichever sender this machine has, and its time is that of the requests, not of its process."""
    port = server.server_port
    with load.in_memory(wire(port)) as file:
        got = await load.send(port, 4, 1.0, replay=file)
    sent = server.seen.total()  # type: ignore[attr-defined]
    assert (got.sent, got.answered, got.idle, got.broken) == (sent, sent, 4, 0)
    assert got.accepted == sum(not action.endswith("0") for action in server.seen)  # type: ignore[attr-defined]
    assert set(server.seen.values()) == {1}  # type: ignore[attr-defined]
    assert 0 < got.seconds < 1.0 + load.DRAIN
