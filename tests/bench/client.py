"""The sender where there is no wrk: one process, epoll, ready bytes out and status lines in, nothing else. `load.send`
starts it.

`python -m tests.bench.client PORT CONNECTIONS` with SECONDS and REPLAY in the environment; prints the same line of JSON
as replay.lua. It costs little more than wrk: 9 µs of CPU a request beside 8, at 50,000 requests a second over 32 and
128 connections.
"""

import json
import os
import select
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.load import BOARD_PATH, DRAIN, LENGTH

CHUNK = 65536  # bytes; an answer of ours is a few hundred to a few thousand


def stored(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while length := file.read(LENGTH):
            yield file.read(int(length))


def endless(request: bytes) -> Iterator[bytes]:
    while True:
        yield request


def complete(data: bytes) -> bool:
    """Whether an answer is whole. Every answer here has a Content-Length."""
    head, blank, body = data.partition(b"\r\n\r\n")
    if not blank:
        return False
    lower = head.lower()
    at = lower.index(b"content-length:") + 15
    return len(body) >= int(lower[at:].split(b"\r\n", 1)[0])


def run(port: int, connections: int, seconds: float, wire: Iterator[bytes]) -> dict[str, float]:
    poll = select.epoll()
    open_sockets: dict[int, socket.socket] = {}
    partial: dict[int, bytes] = {}
    started: dict[int, float] = {}
    latencies: list[float] = []
    sent = idle = refused = broken = 0
    begun = now = time.perf_counter()

    def next_one(fd: int) -> None:
        nonlocal sent, idle
        data = next(wire, None) if now - begun < seconds else None
        if data is None:
            idle += 1
            return
        sent += 1
        started[fd] = now
        open_sockets[fd].sendall(data)  # a request is far smaller than a socket's buffer: it never waits

    for _ in range(connections):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        open_sockets[sock.fileno()] = sock
        poll.register(sock.fileno(), select.EPOLLIN)
    begun = now = time.perf_counter()
    for fd in open_sockets:
        next_one(fd)
    while idle + broken < connections and now - begun < seconds + DRAIN:
        for fd, _ in poll.poll(0.1):
            data = partial.pop(fd, b"") + (got := open_sockets[fd].recv(CHUNK))
            now = time.perf_counter()
            if not got:
                broken += 1
                poll.unregister(fd)
            elif not complete(data):
                partial[fd] = data
            else:
                latencies.append(now - started[fd])
                refused += data[9:10] >= b"4"
                next_one(fd)
        now = time.perf_counter()
    for sock in open_sockets.values():
        sock.close()
    latencies.sort()
    p50, p99 = (latencies[int(len(latencies) * q)] * 1e6 if latencies else 0 for q in (0.5, 0.99))
    return {
        "sent": sent,
        "idle": idle,
        "answered": len(latencies),
        "refused": refused,
        "broken": broken,
        "seconds": now - begun,
        "p50_us": p50,
        "p99_us": p99,
    }


def main() -> None:
    port, connections = int(sys.argv[1]), int(sys.argv[2])
    get = f"GET {BOARD_PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    wire = stored(Path(os.environ["REPLAY"])) if "REPLAY" in os.environ else endless(get)
    print(json.dumps(run(port, connections, float(os.environ["SECONDS"]), wire)))


if __name__ == "__main__":
    main()
