"""The viewers: one process, epoll, raw sockets. Opens thousands of connections and notes when each was shown what, and
nothing else.

`python -m tests.bench.fanout_viewers PORT`; commands come as lines of JSON on stdin, each is answered by one on stdout
(`fanout_crowd` is at the other end); the end of stdin is the end of the process. A message costs it some 5 µs of CPU,
so that the server is what is measured. Of boards that look alike only the first is parsed; see fanout_wire.
"""

import gc
import json
import os
import resource
import select
import socket
import sys
import time
from array import array
from collections import Counter
from itertools import count
from typing import Any

from tests.bench import fanout_wire as wire
from tests.bench.fanout_wire import TAIL, Shown, Transport

CHUNK = 16_384  # bytes a read; a board has one to two thousand
AT_A_TIME = 128  # connections being opened at once, unless all are to come at once
# connections from one source address: an address has 28,000 ports, and those just closed stay taken for a minute
SOURCE_EACH = 10_000
# IP_BIND_ADDRESS_NO_PORT: the port is chosen at connect, so it need only be unique for this destination
BIND_ADDRESS_NO_PORT = 24
TRICKLE_SECONDS = 1.0  # a trickling reader takes one byte so often
NOTHING, OTHER = -1, -1  # no board shown yet; a message that is not a board

CONNECTING, GREETING, OPEN = range(3)


class Viewer:
    __slots__ = ("fd", "last", "rest", "sock", "stage")

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.fd = sock, sock.fileno()
        self.stage = CONNECTING
        self.rest = b""  # the beginning of a message
        self.last = NOTHING  # index of the board it was shown last


class Viewers:
    """All of this process, on one transport."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._poll = select.epoll()
        self._viewers: dict[int, Viewer] = {}
        self._trickling: list[Viewer] = []
        self._known: dict[bytes, int] = {}  # tail → index in _shown, or OTHER
        self._keys: dict[str, int] = {}
        self._shown: list[Shown] = []
        # of each board: when it came to those that had the one before it, Unix milliseconds
        self._times: list[array[float]] = []
        self._late: list[tuple[int, int, float]] = []  # those that had an older one: (what it had, what it got, when)
        self._bytes = self._gone = 0
        self._numbers = count()
        self._order: dict[str, Any] = {}  # the `open` under way or done
        self._transport: Transport | None = None
        self._to_open = self._opening = 0
        self._is_peers = False
        self._begun = 0.0

    # ---- commands ----------------------------------------------------------------------------------------------------

    def obey(self, order: dict[str, Any]) -> None:
        match order["do"]:
            case "open":
                self._order = order
                self._open()
            case "again":
                for viewer in self._viewers.values():
                    viewer.sock.close()
                self._viewers.clear()
                self._order |= {"at_once": True}
                self._open()
            case "begin":
                for times in self._times:
                    del times[:]
                self._late.clear()
                self._bytes = self._gone = 0
                self._answer({})
            case "end":
                self._answer(self._report())

    def _answer(self, answer: dict[str, Any]) -> None:
        print(json.dumps(answer), flush=True)

    def _report(self) -> dict[str, Any]:
        """`rows`: (what it had, what it got, Unix milliseconds, how many viewers)."""
        rows = [
            (index - 1, index, at, many)
            for index, times in enumerate(self._times)
            for at, many in Counter(int(t) for t in times).items()
        ]
        rows += [
            (had, got, at, many)
            for (had, got, at), many in Counter((had, got, int(at)) for had, got, at in self._late).items()
        ]
        return {
            "shown": self._shown,
            "rows": rows,
            "bytes": self._bytes,
            "gone": self._gone,
            "open": len(self._viewers),
        }

    # ---- opening -----------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        order = self._order
        match order["transport"]:
            case "websocket":
                self._transport = wire.websocket(order["path"], self._port, order["mode"])
                self._is_peers = order["mode"] is None
            case "stream":
                self._transport = wire.stream(self._port)
            case _:
                self._transport = wire.poll(self._port)
        self._begun = time.monotonic()
        self._to_open, self._opening = order["count"], 0
        self._open_more()

    def _open_more(self) -> None:
        while self._to_open and (self._order["at_once"] or self._opening < AT_A_TIME):
            self._to_open -= 1
            self._opening += 1
            sock = socket.socket()
            sock.setblocking(False)
            if self._order["receive_buffer"]:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._order["receive_buffer"])
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)
            sock.bind((f"127.0.0.{2 + next(self._numbers) // SOURCE_EACH % 250}", 0))
            sock.connect_ex(("127.0.0.1", self._port))
            viewer = self._viewers[sock.fileno()] = Viewer(sock)
            self._poll.register(viewer.fd, select.EPOLLOUT)

    def _served(self) -> None:
        self._opening -= 1
        self._open_more()
        if not self._opening:
            self._answer({"seconds": time.monotonic() - self._begun, "open": len(self._viewers)})

    def _connected(self, viewer: Viewer) -> None:
        if error := viewer.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, os.strerror(error))
        assert self._transport is not None
        self._poll.modify(viewer.fd, select.EPOLLIN)
        viewer.sock.sendall(self._transport.request)
        viewer.stage = OPEN if self._order["transport"] == "poll" else GREETING

    def _greeted(self, viewer: Viewer) -> None:
        assert self._transport is not None
        got = viewer.sock.recv(CHUNK)
        viewer.rest += got
        head, blank, rest = viewer.rest.partition(b"\r\n\r\n")
        if not got or (blank and not head.startswith(self._transport.answer)):
            raise ConnectionError(f"refused with {head[:200]!r}")
        if not blank:
            return
        viewer.stage, viewer.rest = OPEN, b""
        if self._transport.greeting:
            viewer.sock.sendall(self._transport.greeting)
        if self._order["trickle"]:
            self._poll.modify(viewer.fd, 0)  # only its end is told
            self._trickling.append(viewer)
            self._served()
            return
        if self._is_peers:
            self._served()  # a peer's viewer: nothing is sent before all are there
        if rest:
            self._take(viewer, rest)

    # ---- open --------------------------------------------------------------------------------------------------------

    def _take(self, viewer: Viewer, data: bytes) -> None:
        assert self._transport is not None
        if viewer.rest:
            data = viewer.rest + data
        messages, viewer.rest = self._transport.cut(data)
        now, polls = time.time() * 1000, self._order["transport"] == "poll"
        for message in messages:
            index = self._known.get(message[-TAIL:])
            if index is None:
                index = self._learn(viewer, message)
            last = viewer.last
            if index > last:
                if last == NOTHING and not self._is_peers:
                    pass  # what a viewer of ours is shown first is as old as it is
                elif index == last + 1:
                    self._times[index].append(now)
                    self._bytes += len(message)
                else:
                    self._late.append((last, index, now))
                    self._bytes += len(message)
                viewer.last = index
                if last == NOTHING and self._opening:
                    self._served()
            if polls:
                since = self._shown[viewer.last].key if viewer.last != NOTHING else ""
                viewer.sock.sendall(wire.poll_request(self._port, since))

    def _learn(self, viewer: Viewer, message: bytes) -> int:
        """The index of a message that was not seen before; new boards get the next one."""
        assert self._transport is not None
        if message[0] == wire.PING:
            viewer.sock.sendall(wire.PONG)
            return OTHER
        if message.startswith(b"HTTP/1.1 ") and message[9:12] not in {b"200", b"204"}:
            raise ConnectionError(f"refused with {message[:200]!r}")
        shown = wire.read_message(self._transport.payload(message))
        if shown is None:
            index = OTHER
        elif (index := self._keys.get(shown.key, NOTHING)) == NOTHING:
            index = self._keys[shown.key] = len(self._shown)
            self._shown.append(shown)
            self._times.append(array("d"))
        self._known[message[-TAIL:]] = index
        return index

    def _read(self, viewer: Viewer) -> None:
        try:
            data = viewer.sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._take(viewer, data)
        elif viewer.last == NOTHING and self._opening:
            raise ConnectionError("closed before it was shown anything")
        else:
            self._lost(viewer)

    def _lost(self, viewer: Viewer) -> None:
        self._gone += 1
        del self._viewers[viewer.fd]
        viewer.sock.close()

    def _trickle(self) -> None:
        for viewer in self._trickling:
            if viewer.fd in self._viewers:
                try:
                    viewer.sock.recv(1)
                except BlockingIOError:
                    pass
                except OSError:
                    self._lost(viewer)

    # ---- the loop ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        self._poll.register(sys.stdin.fileno(), select.EPOLLIN)
        orders, next_trickle = b"", 0.0
        while True:
            for fd, event in self._poll.poll(TRICKLE_SECONDS / 4):
                viewer = self._viewers.get(fd)
                if viewer is None:
                    if fd == sys.stdin.fileno():
                        if not (data := os.read(fd, CHUNK)):
                            return
                        *lines, orders = (orders + data).split(b"\n")
                        for line in lines:
                            self.obey(json.loads(line))
                        break  # what else was reported may be of descriptors that are others' now; it is reported again
                elif viewer.stage == CONNECTING:
                    self._connected(viewer)
                elif viewer.stage == GREETING:
                    self._greeted(viewer)
                elif event & select.EPOLLIN:
                    self._read(viewer)
                else:  # EPOLLHUP or EPOLLERR of a trickling reader
                    self._lost(viewer)
            if self._trickling and time.monotonic() >= next_trickle:
                next_trickle = time.monotonic() + TRICKLE_SECONDS
                self._trickle()


def main() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.disable()  # its pauses would be taken for lag; nothing here is cyclic
    try:
        Viewers(int(sys.argv[1])).run()
    except OSError as exc:
        sys.exit(f"a viewer could not be served: {exc!r}")


if __name__ == "__main__":
    main()
