"""Listens, accepts, runs one guarded task a connection, sweeps their deadlines, drains.

`Server.run` owns the nursery of the connections. `app` starts it and ends it with `drain`. An exception in a connection
ends that connection alone and never reaches the nursery. HTTP itself is in `http.connection`.

Log events: `accept_failed`, `connection_failed`, `deadline_callback_failed`, `drain_timed_out`.
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
from scoreboard.http.handlers import RequestHandlers
from scoreboard.net.poller import HAS_EPOLL, Poller
from scoreboard.net.sockets import Socket
from scoreboard.telemetry import metrics

BACKLOG = 4096  # connections that wait to be accepted; the kernel cuts it to net.core.somaxconn
SEND_BUFFER_BYTES = (
    16_384  # the kernel's default holds 3.8 MiB, six minutes of boards, until a reader is seen to be slow
)
ACCEPT_BATCH = 6  # connections accepted in a row, a millisecond: many new ones do not delay the open ones
REFUSALS_PER_ACCEPT_BATCH = (
    4  # times the batch may be refused in a row: a refusal costs a fourth of what accepting does
)
# When descriptors or memory have run out: accept would fail at once again, and the listener stays readable.
ACCEPT_PAUSE_SECONDS = 0.1
SWEEP_INTERVAL_SECONDS = 0.5  # deadlines are some seconds long, so half a second more does not matter
RESERVED_DESCRIPTORS = 64  # for the stores, files and listeners of the process; connections never get these
EVICTION_DIVISOR = (
    64  # when no place is free, one in 64 is freed at once, because choosing walks through all connections
)
NO_LINGER = struct.pack("ii", 1, 0)  # a refused connection ends with a reset and leaves no TIME_WAIT

# A peer has left, or the sweeper has closed: not logged.
DISCONNECT_ERRORS = (trio.BrokenResourceError, trio.ClosedResourceError, ConnectionError)

log = structlog.get_logger()


async def listen(host: str, port: int) -> list[stdlib_socket.socket]:
    """Non-blocking listeners on every address of `host`, all on one port. Port 0: the system chooses.

    Raises StartError.
    """
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
        # Accepted sockets inherit both, which saves two system calls a connection.
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

    There is always a place for one more connection. When as many are open as the process has descriptors for (less a
    reserve), `_evict` closes some of those that wait for their clients. It closes neither connections whose requests
    are being answered nor viewers; `viewer_places` keeps viewers from taking all places.
    """

    def __init__(self, handlers: RequestHandlers, places: int | None = None) -> None:
        """`places`: how many connections there may be; None: as many as the process has descriptors for."""
        self._handlers = handlers
        self.places = places or connection_places()
        self._listeners: list[stdlib_socket.socket] = []
        self._connections: dict[Socket, Connection] = {}
        self._empty = trio.Event()  # set while draining, when no connection is left
        self._close_after_response = False  # every response is the last of its connection
        self._draining = False
        self._nursery: trio.Nursery | None = None  # in which connections live
        self._poller: Poller | None = None  # None where the system has no epoll
        self._scope = trio.CancelScope()
        self.port = 0  # the one that is bound

    @property
    def connections(self) -> int:
        """How many are open, of all kinds."""
        return len(self._connections)

    async def run(
        self, host: str, port: int, *, task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serves until `drain` has ended it. `task_status` receives the address that is bound.

        Cancelling closes everything at once. Raises StartError when the address cannot be bound.
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
        """From now on every response says "Connection: close", so that clients leave between two requests.

        New connections are still accepted: a balancer learns of the drain with its next probe.
        """
        self._close_after_response = True
        for connection in self._connections.values():
            connection.writer.close_after_response = True

    def stop_listening(self) -> None:
        """Stops accepting. Connections that the kernel has accepted already are served."""
        for listener in self._listeners:
            if listener.fileno() >= 0:
                if self._nursery is not None:
                    self._accept_pending(listener, self._nursery, BACKLOG)
                trio.lowlevel.notify_closing(listener)
                listener.close()

    async def drain(self, grace: float) -> None:
        """Ends the server; then `run` returns. `app.node` has closed WebSockets and streams before (`Hub.shut_down`).

        1. It stops listening and closes idle connections.
        2. It lets requests that have begun be answered, with "Connection: close".
        3. After `grace` seconds it closes what is left.

        Cancelling it leaves begun requests and `run` going on; nothing new is accepted.
        """
        self._draining = self._close_after_response = True
        self.stop_listening()
        for connection in list(self._connections.values()):
            connection.begin_drain()
        if self._connections:
            with trio.move_on_after(grace):
                await self._empty.wait()
        if self._connections:
            log.warning("drain_timed_out", left=len(self._connections))
        self._scope.cancel()  # each connection's guard closes its socket

    # ---- tasks ------------------------------------------------------------------------------------------------------

    async def _accept(self, listener: stdlib_socket.socket, nursery: trio.Nursery) -> None:
        """Accepts until the listener closes."""
        failing = False  # so that a shortage of descriptors or memory is logged once
        while listener.fileno() >= 0:
            try:
                await trio.lowlevel.wait_readable(listener)
                if error := self._accept_pending(listener, nursery, ACCEPT_BATCH):
                    raise error
                failing = False
            except trio.ClosedResourceError:
                return
            except OSError as exc:
                if isinstance(exc, ConnectionError) or listener.fileno() < 0:
                    continue  # the peer left before it was accepted, or we have closed the listener
                if not failing:  # EMFILE, ENFILE, ENOMEM; accepting goes on after any other error too
                    log.warning("accept_failed", error=str(exc), connections=len(self._connections))
                failing = True
                await trio.sleep(ACCEPT_PAUSE_SECONDS)

    def _accept_pending(self, listener: stdlib_socket.socket, nursery: trio.Nursery, most: int) -> OSError | None:
        """Starts a task for each connection that waits to be accepted. Returns the error that stopped it, or None."""
        handlers = self._handlers
        newcomers: set[Socket] = set()  # that have not been read from yet
        refused = 0
        try:
            while len(newcomers) < most and refused < REFUSALS_PER_ACCEPT_BATCH * most:
                if len(self._connections) >= self.places and not self._evict(newcomers):
                    return OSError(errno.EMFILE, "all connections are at work")
                sock, address = listener.accept()
                peer = _peer(address)
                group = handlers.peer_group(peer[0])
                if not handlers.admit_connection(group):
                    sock.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, NO_LINGER)
                    sock.close()
                    refused += 1
                    continue
                sock.setblocking(False)
                socket = Socket(sock, nursery, peer, group)
                connection = Connection(socket, handlers)
                connection.writer.close_after_response = self._close_after_response
                newcomers.add(socket)
                # Added here and not in its task, because a drain may begin before the task runs.
                self._connections[socket] = connection
                nursery.start_soon(self._serve, connection)
        except BlockingIOError:
            pass  # no more wait
        except OSError as exc:
            if exc.errno not in {errno.EMFILE, errno.ENFILE} or not self._evict(newcomers):
                return exc
        return None

    def _evict(self, spared: Container[Socket]) -> bool:
        """Closes connections that wait for their clients. True when there was one.

        The order is: lowest `eviction_class`, then the `peer_group` with most connections, then the longest idle. So a
        crowd of connections from one network evicts its own.
        """
        waiting = [each for each in self._connections.values() if each.waits_for_client and each.socket not in spared]
        number = Counter(each.socket.peer_group for each in waiting)

        def order(each: Connection) -> tuple[int, int, float]:
            return each.eviction_class, -number[each.socket.peer_group], each.waiting_since

        for connection in heapq.nsmallest(max(1, len(self._connections) // EVICTION_DIVISOR), waiting, key=order):
            self._release(connection.socket)
            connection.socket.close()
            metrics.CONNECTIONS_EVICTED.inc()
        return bool(waiting)

    def _release(self, socket: Socket) -> None:
        """Frees the place of a connection. Idempotent."""
        if self._connections.pop(socket, None) is not None:
            self._handlers.release_connection(socket.peer_group)

    async def _serve(self, connection: Connection) -> None:
        """Runs one connection. What it raises is logged here."""
        socket = connection.socket
        try:
            if self._poller is not None and socket.fd >= 0:
                socket.watcher = self._poller.watch(socket.fd, socket.peer_group)
            await connection.run()
        except* DISCONNECT_ERRORS:
            pass
        except* Exception as group:
            log.exception("connection_failed", peer=socket.peer[0], exc_info=_single_exception(group))
        finally:
            socket.close()
            self._release(socket)
            if self._draining and not self._connections:
                self._empty.set()

    async def _sweep(self) -> None:
        """Compares every deadline with the clock, twice a second. A cancel scope for each read costs more than the
        parsing."""
        while True:
            await trio.sleep(SWEEP_INTERVAL_SECONDS)
            now = trio.current_time()
            for socket in list(self._connections):
                if now <= socket.deadline and now - socket.behind_since <= socket.slow_reader_timeout:
                    continue  # compared here too: thousands of calls cost more than the comparison
                try:
                    socket.sweep(now)
                except Exception:
                    log.exception("deadline_callback_failed")
                    socket.close()


def connection_places() -> int:
    """How many connections the process has descriptors for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1_000_000 if soft == resource.RLIM_INFINITY else max(soft - RESERVED_DESCRIPTORS, soft // 2)


def viewer_places(wanted: int) -> int:
    """How many viewers there may be: as many as wanted (0: any number), but one place in sixteen is left for short
    requests."""
    places = connection_places()
    most = places - max(places // 16, 1)
    return min(wanted, most) if wanted else most


def _peer(address: tuple[str, int]) -> tuple[str, int]:
    """Host and port. An IPv4 address of a dual-stack listener is written as IPv4."""
    host = address[0]
    return (host.removeprefix("::ffff:") if "." in host else host, address[1])


def _single_exception(exc: BaseException) -> BaseException:
    """The exception in a group of one; else the group."""
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc
