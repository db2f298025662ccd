"""Listens, accepts, runs one guarded task a connection, sweeps their deadlines, drains.

`Server.run` owns the nursery in which connections live; app starts it under the root nursery and ends it with `drain`.
Whatever a connection does, it ends that connection alone: nothing reaches the nursery. What is spoken on a connection
is http1's matter.
"""

import errno
import heapq
import resource
import socket as stdlib_socket
import struct
from collections import Counter
from collections.abc import Container

import structlog
import trio

from scoreboard.domain.errors import StartError
from scoreboard.http.connection import Connection
from scoreboard.http.handlers import Handlers
from scoreboard.net.poller import HAS_EPOLL, Poller
from scoreboard.net.sockets import Socket
from scoreboard.telemetry import metrics

BACKLOG = 4096  # connections that wait to be accepted; the kernel cuts it to net.core.somaxconn
SEND_BUFFER_BYTES = 16_384  # with the kernel's default a slow reader hides behind 3.8 MiB, six minutes of boards
ACCEPT_BATCH = 6  # connections taken in one go, a millisecond: a crowd that arrives does not hold up those who are here
REFUSED_BATCHES = 4  # so many times more are refused in one go: each costs a fourth, and others wait behind them
# seconds, when descriptors or memory have run out: accept would fail at once again, and the listener stays readable
ACCEPT_PAUSE = 0.1
SWEEP_SECONDS = 0.5  # deadlines are seconds, so half a second late is no matter
RESERVED_DESCRIPTORS = 64  # for the stores, files and listeners of the process; clients never have these
EVICTED_SHARE = 64  # when all places are taken, one in so many is freed at once: to look for them walks through all
NO_LINGER = struct.pack("ii", 1, 0)  # a refused connection ends with a reset and leaves no TIME_WAIT

DISCONNECT_ERRORS = (
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    ConnectionError,
)  # how peers leave; not worth a line

log = structlog.get_logger()


async def listen(host: str, port: int) -> list[stdlib_socket.socket]:
    """Non-blocking listeners on every address of `host`, all on one port; port 0 lets the system choose. Raises
    StartError."""
    try:
        found = await trio.socket.getaddrinfo(
            host, port, type=stdlib_socket.SOCK_STREAM, flags=stdlib_socket.AI_PASSIVE
        )
    except OSError as exc:
        raise StartError(f"server.host: {host!r} is not a name or address of this machine ({exc})") from exc
    listeners: list[stdlib_socket.socket] = []
    why: OSError | None = None
    for family, kind, protocol, _, address in dict.fromkeys(found):
        at = (address[0], listeners[0].getsockname()[1] if listeners else port, *address[2:])
        try:
            listeners.append(_listener(family, kind, protocol, at, dual_stack=host == "::"))
        except OSError as exc:
            why = exc
            if exc.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:  # those: "localhost" where IPv6 is off
                for listener in listeners:
                    listener.close()
                listeners.clear()
                break
    if not listeners:
        raise StartError(f"cannot listen on {host}:{port}: {why.strerror if why else 'no address'}") from why
    return listeners


def _listener(
    family: int, kind: int, protocol: int, address: tuple[object, ...], *, dual_stack: bool
) -> stdlib_socket.socket:
    listener = stdlib_socket.socket(family, kind, protocol)
    try:
        listener.setblocking(False)
        listener.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_REUSEADDR, 1)
        if family == stdlib_socket.AF_INET6:
            listener.setsockopt(stdlib_socket.IPPROTO_IPV6, stdlib_socket.IPV6_V6ONLY, 0 if dual_stack else 1)
        # Both are inherited by accepted sockets: two system calls a connection less.
        listener.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        listener.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


class Server:
    """One listener and its connections.

    There is always room for one more. When as many connections are open as the process has descriptors for (less a
    reserve), some of those that wait for their clients are closed, see `_evict`. Connections at work and viewers are
    left alone; there are fewer viewers than places (`viewer_places`).
    """

    def __init__(self, front: Handlers, places: int | None = None) -> None:
        """`places`: how many connections there may be; None: as many as the process has descriptors for."""
        self._front = front
        self.places = places or connection_places()
        self._listeners: list[stdlib_socket.socket] = []
        self._connections: dict[Socket, Connection] = {}
        self._empty = trio.Event()  # while draining: nobody is left
        self._leaving = False  # every answer is its connection's last
        self._draining = False
        self._nursery: trio.Nursery | None = None  # in which connections live
        self._poller: Poller | None = None  # None where the system has no epoll
        self._scope = trio.CancelScope()
        self.port = 0  # the one actually bound

    @property
    def connections(self) -> int:
        """How many are open now, of all kinds."""
        return len(self._connections)

    async def run(
        self, host: str, port: int, *, task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serves until `drain` is through; `task_status` is told the address bound. Cancelling closes everything at
        once.

        Raises StartError when the address can't be had.
        """
        self._listeners = await listen(host, port)
        address = self._listeners[0].getsockname()
        self.port = address[1]
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    if HAS_EPOLL:
                        self._poller = Poller()
                        nursery.start_soon(self._poller.run)
                    nursery.start_soon(self._sweep)
                    for listener in self._listeners:
                        nursery.start_soon(self._accept, listener, nursery)
                    task_status.started((address[0], self.port))
        finally:
            self._nursery = None
            self.stop_listening()
            if self._poller is not None:
                self._poller.close()

    def begin_drain(self) -> None:
        """From here on every answer says "Connection: close", so that clients leave between two requests and not in the
        middle of one.

        New connections are still taken: a balancer hears of our leaving only with its next probe.
        """
        self._leaving = True
        for connection in self._connections.values():
            connection.answers.last = True

    def stop_listening(self) -> None:
        """No new connection from here on; those that are open stay, and so do those that the kernel has accepted for
        us."""
        for listener in self._listeners:
            if listener.fileno() >= 0:
                if self._nursery is not None:
                    self._accept_pending(listener, self._nursery, BACKLOG)
                trio.lowlevel.notify_closing(listener)
                listener.close()

    async def drain(self, grace: float) -> None:
        """Stops listening, closes idle connections, lets requests at hand be answered (with "Connection: close"), and
        after `grace` seconds closes what is left. WebSockets and streams are ended by live before; what it left counts
        as left. Then `run` returns."""
        self._draining = self._leaving = True
        self.stop_listening()
        for connection in list(self._connections.values()):
            connection.begin_drain()
        if self._connections:
            with trio.move_on_after(grace):
                await self._empty.wait()
        if self._connections:
            log.warning("connections closed at the end of the drain", left=len(self._connections))
        self._scope.cancel()  # each connection's guard closes its socket

    # ---- tasks ------------------------------------------------------------------------------------------------------

    async def _accept(self, listener: stdlib_socket.socket, nursery: trio.Nursery) -> None:
        """Until the listener closes."""
        short = False  # of descriptors or memory; logged once a time
        while listener.fileno() >= 0:
            try:
                await trio.lowlevel.wait_readable(listener)
                if error := self._accept_pending(listener, nursery, ACCEPT_BATCH):
                    raise error
                short = False
            except trio.ClosedResourceError:
                return
            except OSError as exc:
                if isinstance(exc, ConnectionError) or listener.fileno() < 0:
                    continue  # it left before it was accepted, or we are leaving
                if not short:  # EMFILE, ENFILE, ENOMEM; whatever else it is, accepting goes on
                    log.warning("cannot accept", error=str(exc), connections=len(self._connections))
                short = True
                await trio.sleep(ACCEPT_PAUSE)

    def _accept_pending(self, listener: stdlib_socket.socket, nursery: trio.Nursery, most: int) -> OSError | None:
        """Starts a task for each connection that waits to be accepted. Returns what stopped it, None when nothing is
        wrong."""
        front = self._front
        newcomers: set[Socket] = set()  # whose bytes have not been looked at yet
        refused = 0
        try:
            while len(newcomers) < most and refused < REFUSED_BATCHES * most:
                if len(self._connections) >= self.places and not self._evict(newcomers):
                    return OSError(errno.EMFILE, "all connections are at work")
                sock, address = listener.accept()
                peer = _peer(address)
                group = front.peer_group(peer[0])
                if not front.admit(group):
                    sock.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, NO_LINGER)
                    sock.close()
                    refused += 1
                    continue
                sock.setblocking(False)
                socket = Socket(sock, nursery, peer, group)
                connection = Connection(socket, front)
                connection.answers.last = self._leaving
                newcomers.add(socket)
                # here and not in its task: a drain that begins before the task must know of it
                self._connections[socket] = connection
                nursery.start_soon(self._serve, connection)
        except BlockingIOError:
            pass  # all are taken
        except OSError as exc:
            if exc.errno not in {errno.EMFILE, errno.ENFILE} or not self._evict(newcomers):
                return exc
        return None

    def _evict(self, spared: Container[Socket]) -> bool:
        """Closes connections that wait for their clients: by `eviction_class`, then of the `peer_group` with most, then
        the longest idle.

        So a crowd of connections from one network costs nobody else his. True when there was one.
        """
        waiting = [each for each in self._connections.values() if each.waits_for_client and each.socket not in spared]
        number = Counter(each.socket.peer_group for each in waiting)

        def order(each: Connection) -> tuple[int, int, float]:
            return each.eviction_class, -number[each.socket.peer_group], each.waiting_since

        for connection in heapq.nsmallest(max(1, len(self._connections) // EVICTED_SHARE), waiting, key=order):
            self._release(connection.socket)
            connection.socket.close()
            metrics.CONNECTIONS_EVICTED.inc()
        return bool(waiting)

    def _release(self, socket: Socket) -> None:
        """Its place is another's from now on. Idempotent."""
        if self._connections.pop(socket, None) is not None:
            self._front.released(socket.peer_group)

    async def _serve(self, connection: Connection) -> None:
        """One connection, under its guard."""
        socket = connection.socket
        try:
            if self._poller is not None and socket.fd >= 0:
                socket.watcher = self._poller.watch(socket.fd, socket.peer_group)
            await connection.run()
        except* DISCONNECT_ERRORS:
            pass
        except* Exception as group:
            log.exception("connection failed", peer=socket.peer[0], exc_info=_alone(group))
        finally:
            socket.close()
            self._release(socket)
            if self._draining and not self._connections:
                self._empty.set()

    async def _sweep(self) -> None:
        """Compares every deadline with the clock, twice a second: a cancel scope a read costs more than parsing."""
        while True:
            await trio.sleep(SWEEP_SECONDS)
            now = trio.current_time()
            for socket in list(self._connections):
                if now <= socket.deadline and now - socket.behind_since <= socket.slow_reader_timeout:
                    continue  # asked here: thousands of calls cost more than their answers
                try:
                    socket.sweep(now)
                except Exception:
                    log.exception("a deadline's hook failed")
                    socket.close()


def connection_places() -> int:
    """How many connections the process has descriptors for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1_000_000 if soft == resource.RLIM_INFINITY else max(soft - RESERVED_DESCRIPTORS, soft // 2)


def viewer_places(wanted: int) -> int:
    """How many connections may watch: as many as wanted (0: any number), but one place in sixteen is left to those who
    ask and go."""
    places = connection_places()
    most = places - max(places // 16, 1)
    return min(wanted, most) if wanted else most


def _peer(address: tuple[str, int]) -> tuple[str, int]:
    """Host and port; an IPv4 address that came in over a dual-stack listener is written as IPv4."""
    host = address[0]
    return (host.removeprefix("::ffff:") if "." in host else host, address[1])


def _alone(exc: BaseException) -> BaseException:
    """The exception itself when a group holds but one."""
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc
