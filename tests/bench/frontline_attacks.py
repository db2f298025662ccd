"""The attacks of `scripts/bench front-line`: what one address can do to a node, each as one function, bounded in number
and time.

`python -m tests.bench.frontline_attacks NAME` with a `Target` as JSON on standard input runs one attack in a process of
its own at the lowest priority, so that it takes its time from nobody: an attacker has a machine of his own. It prints
what he got as one line of JSON.
"""

import os
import resource
import socket
import sys
from collections.abc import Awaitable, Callable

import msgspec
import trio

from tests.bench.frontline_wire import (
    BOARD,
    POLL,
    READ_BYTES,
    StatusCounter,
    connect,
    frame,
    json_request,
    request,
    upgrade,
)

NICE = 19
DESCRIPTORS = 4_096  # for the attacker's own process
NFC_BYTES = 16_000  # of a body; the limit is 16 KiB
SILENT = 1_200  # connections; the node has 1,024 descriptors
FLOODERS = 8  # connections of a flood; more do not ask more of one event loop
PIPELINED = 16  # requests in one write of a flood
RECONNECT_SECONDS = 0.02  # an attacker who is turned away tries again so soon
TWELVE = 12  # WebSockets of a flood of frames; so many took a core
CHECK_SECONDS = 0.25  # between two looks whether a held connection was closed
ESTABLISHED = 1  # TCP_ESTABLISHED of linux/tcp_states.h
HALF_CHUNKED = request(
    "POST", "/api/v1/auth/login", fields={"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
).replace(b"Content-Length: 0\r\n", b"") + (b"1\r\nx\r\n" * 8_000)
IMG_POLLS = 120  # <img> elements of a page, all at once and once only


class Target(msgspec.Struct, frozen=True):
    """Whom and with what."""

    port: int
    address: str
    seconds: float
    token: str = ""  # of an account of the attacker's own
    name: str = ""  # of the account whose password is guessed
    position: str = ""  # of the board now


class Spoils(msgspec.Struct):
    """What an attack got. `held`: its connections that were open at the end."""

    requests: int = 0
    connections: int = 0
    refused: int = 0  # connections that could not be made, or were closed at once
    held: int = 0
    statuses: dict[str, int] = {}


class Tally:
    """Counts for one attack."""

    def __init__(self) -> None:
        self.answers = StatusCounter()
        self.requests = self.connections = self.refused = self.held = 0

    def spoils(self) -> Spoils:
        statuses = {str(status): count for status, count in sorted(self.answers.statuses.items())}
        return Spoils(self.requests, self.connections, self.refused, self.held, statuses)


Attack = Callable[[Target, Tally], Awaitable[None]]


# ---- how -------------------------------------------------------------------------------------------------------------


async def flood(target: Target, tally: Tally, *requests: bytes, connections: int = FLOODERS, at_once: int = 1) -> None:
    """Sends the requests in turn, `at_once` in a write, on each connection; reads the answers before it goes on. Until
    cancelled."""

    async def one(place: int) -> None:
        turn = place
        while True:
            try:
                stream = await connect(target.port, target.address)
            except OSError:
                tally.refused += 1
                await trio.sleep(RECONNECT_SECONDS)
                continue
            tally.connections += 1
            async with stream:
                try:
                    while True:
                        await stream.send_all(requests[turn % len(requests)] * at_once)
                        tally.requests += at_once
                        turn += 1
                        left = at_once
                        while left > 0:
                            data = await stream.receive_some(READ_BYTES)
                            if not data:
                                raise trio.BrokenResourceError
                            left -= tally.answers.feed(bytes(data))
                except trio.BrokenResourceError:
                    await trio.sleep(RECONNECT_SECONDS)

    async with trio.open_nursery() as nursery:
        for place in range(connections):
            nursery.start_soon(one, place)


async def hold(target: Target, tally: Tally, data: bytes, count: int) -> None:
    """Opens so many connections, sends the bytes on each, reads nothing, and opens one anew when it was closed. Until
    cancelled."""

    async def one() -> None:
        while True:
            try:
                stream = await connect(target.port, target.address)
            except OSError:
                tally.refused += 1
            else:
                tally.connections += 1
                tally.held += 1
                async with stream:
                    try:
                        await stream.send_all(data)
                        while is_open(stream):
                            await trio.sleep(CHECK_SECONDS)
                    except trio.BrokenResourceError:
                        pass
                tally.held -= 1
            await trio.sleep(CHECK_SECONDS)

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)


async def frames(target: Target, tally: Tally, first: bytes, data: bytes) -> None:
    """Sends the same frames on TWELVE WebSockets as fast as they are taken, and reads what comes. Until cancelled."""

    async def read(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
        try:
            while received := await stream.receive_some(READ_BYTES):
                tally.answers.feed(bytes(received))
        except trio.BrokenResourceError:
            pass
        scope.cancel()

    async def one() -> None:
        while True:
            try:
                stream = await connect(target.port, target.address)
            except OSError:
                tally.refused += 1
                await trio.sleep(CHECK_SECONDS)
                continue
            tally.connections += 1
            async with stream, trio.open_nursery() as nursery:
                try:
                    await stream.send_all(upgrade())
                    tally.answers.feed(bytes(await stream.receive_some(READ_BYTES)))
                    nursery.start_soon(read, stream, nursery.cancel_scope)
                    await stream.send_all(first)
                    while True:
                        await stream.send_all(data)
                        tally.requests += 1
                except trio.BrokenResourceError:
                    nursery.cancel_scope.cancel()
            await trio.sleep(RECONNECT_SECONDS)

    async with trio.open_nursery() as nursery:
        for _ in range(TWELVE):
            nursery.start_soon(one)


def is_open(stream: trio.SocketStream) -> bool:
    """Whether the server has not ended the connection, without reading: TCP_INFO's first byte is the state."""
    return (
        stream.socket.fileno() >= 0
        and stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == ESTABLISHED
    )


def neighbours(address: str, count: int) -> list[str]:
    """Addresses of one network, the given one first."""
    network, _, host = address.rpartition(".")
    return [f"{network}.{int(host) + place}" for place in range(count)]


# ---- what ------------------------------------------------------------------------------------------------------------


def nfc_text() -> str:
    """Marks of two combining classes in turn: NFC sorts them by class, and takes time that grows with the square of
    their number."""
    return "a" + "\u0301\u0323" * (NFC_BYTES // 4)


async def register_nfc(target: Target, tally: Tally) -> None:
    body = {"username": nfc_text(), "email": "a@example.org", "password": "a-long-password"}
    await flood(target, tally, json_request("POST", "/api/v1/auth/register", body), connections=2)


async def log_in_nfc(target: Target, tally: Tally) -> None:
    body = {"username": nfc_text(), "password": "a-long-password"}
    await flood(target, tally, json_request("POST", "/api/v1/auth/login", body), connections=2)


async def rename_nfc(target: Target, tally: Tally) -> None:
    fields = {"Authorization": f"Bearer {target.token}"}
    await flood(
        target, tally, json_request("PATCH", "/api/v1/users/me", {"username": nfc_text()}, fields), connections=2
    )


async def header_fields(target: Target, tally: Tally) -> None:
    await flood(target, tally, b"GET /livez HTTP/1.1\r\nHost: t\r\n" + b"a:\r\n" * 3_900 + b"\r\n")


async def query_fields(target: Target, tally: Tally) -> None:
    await flood(target, tally, request("GET", f"{BOARD}?{'a&' * 5_000}"))


async def silent(target: Target, tally: Tally) -> None:
    await hold(target, tally, b"", SILENT)


async def half_a_head(target: Target, tally: Tally) -> None:
    await hold(target, tally, b"GET / HTTP/1.1\r\nHost: t\r\n" + b"a:\r\n" * 3_000, 300)


async def half_a_body(target: Target, tally: Tally) -> None:
    await hold(target, tally, HALF_CHUNKED, 300)


async def pipelined_unread(target: Target, tally: Tally) -> None:
    await hold(target, tally, request("GET", "/livez") * 650, 100)


async def refused_flood(target: Target, tally: Tally) -> None:
    await flood(target, tally, request("GET", BOARD), at_once=PIPELINED)


async def websocket_pings(target: Target, tally: Tally) -> None:
    await frames(target, tally, b"", frame(9) * PIPELINED)


async def websocket_fragments(target: Target, tally: Tally) -> None:
    await frames(target, tally, frame(1, final=False), frame(0, final=False) * PIPELINED)


async def log_in_burst(target: Target, tally: Tally) -> None:
    """300 at once, ten from each of thirty addresses: so many each address may try in a minute."""

    async def one(address: str, number: int) -> None:
        body = {"username": f"nobody-{number}", "password": "a-long-password"}
        try:
            async with await connect(target.port, address) as stream:
                tally.connections += 1
                await stream.send_all(json_request("POST", "/api/v1/auth/login", body))
                tally.requests += 1
                while data := await stream.receive_some(READ_BYTES):
                    tally.answers.feed(bytes(data))
        except OSError:
            tally.refused += 1
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        for place, address in enumerate(neighbours(target.address, 30)):
            for number in range(10):
                nursery.start_soon(one, address, place * 10 + number)


async def wrong_log_ins(target: Target, tally: Tally) -> None:
    body = {"username": target.name, "password": "not-the-password"}
    await flood(target, tally, json_request("POST", "/api/v1/auth/login", body), connections=2)


async def profile_flood(target: Target, tally: Tally) -> None:
    fields = {"Authorization": f"Bearer {target.token}"}
    urls = [f"https://example.org/{number}.png" for number in range(50)]
    await flood(
        target,
        tally,
        *(json_request("PATCH", "/api/v1/users/me", {"avatarUrl": url}, fields) for url in urls),
        connections=2,
    )


async def bad_host(target: Target, tally: Tally) -> None:
    await flood(target, tally, request("GET", "/", host="a..b"))


async def livez(target: Target, tally: Tally) -> None:
    await flood(target, tally, request("GET", "/livez"), at_once=PIPELINED)


async def openapi(target: Target, tally: Tally) -> None:
    await flood(target, tally, request("GET", "/api/v1/openapi.json"))


async def aborted_polls(target: Target, tally: Tally) -> None:
    async def one() -> None:
        while True:
            try:
                async with await connect(target.port, target.address) as stream:
                    tally.connections += 1
                    await stream.send_all(request("GET", f"{POLL}?since={target.position}&wait=30"))
                    tally.requests += 1
                    with trio.move_on_after(RECONNECT_SECONDS):
                        tally.answers.feed(bytes(await stream.receive_some(READ_BYTES)))
            except OSError:
                tally.refused += 1
                await trio.sleep(RECONNECT_SECONDS)
            except trio.BrokenResourceError:
                await trio.sleep(RECONNECT_SECONDS)

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(one)


async def connect_and_close(target: Target, tally: Tally) -> None:
    async def one() -> None:
        while True:
            try:
                async with await connect(target.port, target.address):
                    tally.connections += 1
            except OSError:
                tally.refused += 1
                await trio.sleep(RECONNECT_SECONDS)

    async with trio.open_nursery() as nursery:
        for _ in range(FLOODERS):
            nursery.start_soon(one)


async def foreign_polls(target: Target, tally: Tally) -> None:
    """What another site's page makes the browser of one of our users do, from that user's own address."""
    fields = {
        "Sec-Fetch-ServerPlace": "cross-site",
        "Sec-Fetch-Mode": "no-cors",
        "Sec-Fetch-Dest": "image",
        "Referer": "https://evil.example/",
    }

    async def one() -> None:
        try:
            async with await connect(target.port, target.address) as stream:
                tally.connections += 1
                await stream.send_all(request("GET", f"{POLL}?since={target.position}&wait=30", fields=fields))
                tally.requests += 1
                while data := await stream.receive_some(READ_BYTES):
                    tally.answers.feed(bytes(data))
        except OSError:
            tally.refused += 1
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        for _ in range(IMG_POLLS):
            nursery.start_soon(one)


ATTACKS: dict[str, tuple[str, Attack]] = {
    "register-nfc": ("16 kB of combining marks as a name: register", register_nfc),
    "login-nfc": ("16 kB of combining marks as a name: log-in", log_in_nfc),
    "rename-nfc": ("16 kB of combining marks as a name: PATCH /users/me", rename_nfc),
    "header-fields": ("3,900 header fields", header_fields),
    "query-fields": ("5,000 query fields", query_fields),
    "silent": (f"{SILENT:,} silent connections", silent),
    "half-head": ("300 halves of a head of 3,000 fields", half_a_head),
    "half-body": ("300 halves of a body in chunks of a byte", half_a_body),
    "unread": ("100 times 650 requests whose answers are not read", pipelined_unread),
    "refused": ("a flood that is answered with 429", refused_flood),
    "pings": ("WebSocket pings on 12 connections", websocket_pings),
    "fragments": ("WebSocket messages of empty fragments on 12 connections", websocket_fragments),
    "login-burst": ("300 log-ins at once from 30 addresses", log_in_burst),
    "wrong-logins": ("wrong log-ins for an account whose owner logs in from elsewhere", wrong_log_ins),
    "profile": ("another picture with every PATCH /users/me", profile_flood),
    "bad-host": ("`Host: a..b`", bad_host),
    "livez": ("a flood of /livez", livez),
    "openapi": ("a flood of openapi.json", openapi),
    "aborted-polls": ("long polls that are opened and aborted", aborted_polls),
    "connect-close": ("connections that are opened and closed", connect_and_close),
    "img-polls": (f"{IMG_POLLS} long polls by another site's <img>, from a user's own address", foreign_polls),
}


async def attack(name: str, target: Target) -> Spoils:
    tally = Tally()
    with trio.move_on_after(target.seconds):
        await ATTACKS[name][1](target, tally)
        await trio.sleep_forever()  # so that what an attack opened once stays open
    return tally.spoils()


def main() -> None:
    os.nice(NICE)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(DESCRIPTORS, most), most))
    target = msgspec.json.decode(sys.stdin.buffer.read(), type=Target)
    print(msgspec.json.encode(trio.run(attack, sys.argv[1], target)).decode())


if __name__ == "__main__":
    main()
