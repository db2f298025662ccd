"""Work that grows faster than its input: every decoder, query parser and header reader gets its worst 16 kB and must
not block the loop.

The one timed test of this project, since nothing else shows it. It counts CPU time of this thread alone and takes the
best of several runs, so that a busy machine changes nothing; LONGEST_MS is many times what any of them takes.
"""

import base64
from collections.abc import Callable, Iterable
from functools import partial
from ipaddress import ip_network
from time import thread_time
from typing import Any, cast
from uuid import UUID

import msgspec
import pytest

from scoreboard.domain import account_rules as profiles
from scoreboard.domain import client_messages, email_addresses, names
from scoreboard.domain.actions import parse_action
from scoreboard.domain.queries import MAX_QUERY_BYTES
from scoreboard.domain.skeletons import folded_skeleton, skeleton_of_first_rule
from scoreboard.http.connection import YIELD_EVERY
from scoreboard.http.parser import HEAD_BYTES, RequestParser
from scoreboard.http.request import BODY_BYTES, NORMAL_PATH, Request
from scoreboard.live.transports.query import query_token, read_query
from scoreboard.net.reading import READ_BYTES
from scoreboard.operations.authenticator import Authenticator
from scoreboard.operations.login_limits import LoginLimits
from scoreboard.security import device_cookies, passwords, refresh_tokens, signatures, tokens
from scoreboard.web import json_body as bodies
from scoreboard.web.authorization import Bearer
from scoreboard.web.client_address import Addresses
from scoreboard.web.compression import accepts_gzip
from scoreboard.web.conditional import matches_etag
from scoreboard.web.cors import Origins
from scoreboard.web.headers import ResponseHeaders
from scoreboard.web.routes.auth import Credentials, Refresh, Registration, read_cookies
from scoreboard.web.routes.scores import read_limit
from scoreboard.web.routes.users import ProfileChange
from tests.operations.people import ISSUER, KEYS, MASTERS
from tests.web.requests import request

LONGEST_MS = 3.0  # CPU time; a fan-out's tick is 100 ms, and each of a thousand requests a minute may be such a one
RUNS = 7
USER = UUID(int=7)
MARKS = "\u0345\u0334"  # combining marks in the order in which composing them has most to do


def spent_ms(work: Callable[[], object]) -> float:
    """The least CPU time of several runs."""
    best = float("inf")
    for _ in range(RUNS):
        began = thread_time()
        work()
        best = min(best, thread_time() - began)
    return best * 1000


def filled(start: str | bytes, unit: str | bytes, end: str | bytes = b"", size: int = BODY_BYTES) -> bytes:
    """`unit` as often as there is room for it."""
    first, again, last = (part.encode() if isinstance(part, str) else part for part in (start, unit, end))
    return first + again * ((size - len(first) - len(last)) // len(again)) + last


def check(inputs: Iterable[tuple[str, Callable[[], object]]]) -> None:
    slow = {name: round(spent, 2) for name, work in inputs if (spent := spent_ms(work)) > LONGEST_MS}
    assert slow == {}


# ---- bodies ---------------------------------------------------------------------------------------------------------

ACTION = '{"actionId":"a","actionType":"b","timestamp":"2026-01-10T10:30:00Z","metadata":'
NUMBERS = (
    "1",
    "0.1",
    "1e-320",
    "5e-324",
    "1.7976931348623158e308",
    "2.2250738585072011e-308",
    "1e23",
    "9" * 25,
    "0." + "9" * 700,
)
BODIES = {
    "usual": b'{"username":"Ada","password":"correct horse battery"}',
    "an usual action": f'{ACTION}{{"difficulty":"medium","timeSpent":120.5}}}}'.encode(),
    **{
        f"{what} in {name}": filled(f'{{"username":"a","email":"a@b.c","password":"b","{name}":"', unit, '"}')
        for name in ("username", "password", "email", "avatarUrl", "refreshToken", "actionId", "timestamp", "userId")
        for what, unit in (("marks", MARKS), ("letters", "x"), ("escapes", "\\u0301"), ("digits", "2"))
    },
    "marks as a name": filled('{"username":"', MARKS, '","password":"b"}'),
    "marks as a password": filled('{"username":"a","password":"', MARKS, '"}'),
    "open brackets": filled("", "["),
    "open braces": filled("", '{"a":'),
    "open brackets in a field": filled('{"username":"a","password":', "["),
    "closed brackets": b"[" * 8000 + b"]" * 8000,
    "deep metadata": (ACTION + '{"a":' * 2600 + "1" + "}" * 2600 + "}").encode(),
    "wide metadata": filled(ACTION + '{"a":[[]', ",[]", "]}}"),
    "objects": filled(ACTION + '{"a":[{}', ",{}", "]}}"),
    "a name again and again": filled(ACTION + '{"a":0', ',"a":0', "}}"),
    "names": (ACTION + "{" + ",".join(f'"{number:x}":0' for number in range(1700)) + "}}").encode(),
    "escapes": filled(ACTION + '{"a":"', "\\u00e9", '"}}'),
    "one long number": filled(ACTION + '{"a":', "9", "}}"),
    "one long fraction": filled(ACTION + '{"a":0.', "9", "}}"),
    **{f"numbers {number[:24]}": filled(f'{ACTION}{{"a":[{number}', f",{number}", "]}}") for number in NUMBERS},
    **{f"numbers {number[:24]} as a name": filled(f'{{"username":[{number}', f",{number}", "]}") for number in NUMBERS},
    "an unknown name": filled('{"', "x", '":1}'),
    "unknown names": filled('{"a":1', ',"a":1', "}"),
    "spaces": filled("{", " ", "}"),
    "nearly NUL": filled("", "\\u000"),
}
STRUCTS = (Registration, Credentials, Refresh, ProfileChange)


@pytest.mark.parametrize("kind", STRUCTS)
def test_bodies(kind: type) -> None:
    """Log-in, registration, refresh, profile."""
    decoder: Any = msgspec.json.Decoder(kind)
    check((name, partial(bodies.read, request(body=body), decoder)) for name, body in BODIES.items())


def test_actions() -> None:
    """From raw bytes to an action or a refusal, signed or not."""
    check((name, partial(parse_action, body)) for name, body in BODIES.items())
    secrets = signatures.action_secrets(MASTERS, USER, USER)
    check((name, partial(signatures.matches, "a" * 64, body, secrets)) for name, body in BODIES.items())


def test_live_messages() -> None:
    """Of a WebSocket: 4 KiB."""
    texts = {
        name: body.decode("utf-8", "replace")[: client_messages.MAX_MESSAGE_BYTES] for name, body in BODIES.items()
    }
    texts |= {
        f"{name} of a message": filled(
            f'{{"action":"subscribe","{name}":"', MARKS, '"}', client_messages.MAX_MESSAGE_BYTES
        ).decode()
        for name in ("channel", "mode", "since", "x")
    }
    check((name, partial(client_messages.read_message, text)) for name, text in texts.items())


def test_what_the_structs_let_through() -> None:
    """The rules for names, addresses, pictures and passwords, on the longest texts that get as far."""
    units: tuple[tuple[str, str], ...] = (
        ("marks", MARKS),
        ("letters", "x"),
        ("dots", "a."),
        ("at", "@"),
        ("spaces", " a"),
    )
    units += (
        ("ligatures of eighteen", "\ufdfa"),
        ("capital I", "I"),
        ("joined emoji", "\U0001f469\u200d"),
        ("soft hyphens", "\u00ad"),
    )
    units += (
        ("encoded labels", "@xn--mller-kva."),
        ("one encoded label", "@xn--" + "9" * 1024),
        ("letters of a domain", "@ü"),
    )
    longest = {name: unit * 1024 for name, unit in units}
    rules: dict[str, tuple[Callable[[str], object], int]] = {
        "username": (profiles.username, profiles.MAX_RAW_USERNAME_LENGTH),
        "name of a log-in": (lambda text: folded_skeleton(names.fold(text)), profiles.MAX_EMAIL_LENGTH),
        "address of a log-in": (email_addresses.spellings, profiles.MAX_EMAIL_LENGTH),
        "first rule": (skeleton_of_first_rule, profiles.MAX_USERNAME_LENGTH),
        "email": (profiles.email, profiles.MAX_EMAIL_LENGTH),
        "avatarUrl": (profiles.avatar_url, profiles.MAX_AVATAR_URL_LENGTH),
        "password": (passwords._bytes, profiles.MAX_PASSWORD_LENGTH),
    }
    check(
        (f"{rule}: {name}", partial(read, text[:length]))
        for rule, (read, length) in rules.items()
        for name, text in longest.items()
    )


# ---- heads ----------------------------------------------------------------------------------------------------------


def jwt(header: bytes, payload: bytes = b"{}", signature: bytes = b"A" * 86) -> bytes:
    return b".".join((*(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, payload)), signature))


VALUES = {
    "usual": b"x",
    **{
        f"{unit!r} again and again": filled(b"", unit, size=HEAD_BYTES)
        for unit in (b",", b", ", b" ", b"; ", b'"', b":", b"1:", b"1.", b"[")
    },
    **{
        f"{unit!r} in a list": filled(b"", unit, size=HEAD_BYTES)
        for unit in (b"gzip;q=0,", b"10.0.0.1,", b'W/"x", ', b"%41", b"a=&", b"token=&")
    },
    **{
        f"cookies {unit!r}": filled(b"", unit, size=HEAD_BYTES)
        for unit in (b"scoreboard_refresh=a;", b";scoreboard_device", b"; \t \t")
    },
    "refresh cookies": b"; ".join(b"scoreboard_refresh=%086d" % number for number in range(150)),
    "device cookies": b"; ".join(
        b"scoreboard_device=" + device_cookies.make(MASTERS[1], UUID(int=number), b"n" * 16).encode()
        for number in range(190)
    ),
    "letters": b"x" * HEAD_BYTES,
    "an origin": filled(b"https://", b"a.", size=HEAD_BYTES),
    "a long token": b"Bearer " + b"x" * HEAD_BYTES,
    "dots": b"Bearer " + b"." * tokens.MAX_TOKEN_CHARACTERS,
    "deep token": b"Bearer " + jwt(b'{"kid":' + b"[" * 2800),
    "deep claims": b"Bearer " + jwt(b'{"alg":"EdDSA","kid":"k1"}', b'{"a":' * 550),
    "a header of numbers": b"Bearer " + jwt(b'{"kid":[' + b"1e-320," * 400 + b"1]}"),
    "claims of numbers": b"Bearer " + jwt(b'{"alg":"EdDSA","kid":"k1"}', b'{"a":[' + b"1e-320," * 400 + b"1]}"),
    "a long key id": b"Bearer " + jwt(b'{"alg":"EdDSA","kid":"' + b"k" * 2800 + b'"}'),
    "a long signature": b"v1." + b"a" * HEAD_BYTES,
}
ORIGINS = Origins(names=("board.lan",), allowed=("https://friend.example",))
PROXIES = Addresses((ip_network("10.0.0.0/8"), ip_network("127.0.0.0/8")))
HEADS = ResponseHeaders(ORIGINS)


class RefusingAuthenticator:
    """Verifies each token and accepts none."""

    def authenticate(self, token: str) -> None:
        tokens.verify(KEYS, token, issuer=ISSUER, now=0.0)


BEARER = Bearer(cast("Authenticator", RefusingAuthenticator()))
READERS: dict[str, tuple[bytes, Callable[[Request], object]]] = {
    "ETag": (b"if-none-match", lambda made: matches_etag(made, b'"' + b"a" * 32 + b'"')),
    "gzip": (b"accept-encoding", accepts_gzip),
    "refresh cookie": (
        b"cookie",
        lambda made: [refresh_tokens.is_ours(MASTERS, value) for value in read_cookies(made, "scoreboard_refresh")],
    ),
    "device cookie": (
        b"cookie",
        lambda made: [device_cookies.read(MASTERS, value) for value in read_cookies(made, "scoreboard_device")],
    ),
    "address": (b"x-forwarded-for", PROXIES.rate_limit_key),
    "log-in's address": (b"x-forwarded-for", lambda made: LoginLimits(10).begin(PROXIES.client(made), 0.0)),
    "token": (b"authorization", BEARER.identify),
    "origin": (b"origin", ORIGINS.allows),
    "host": (b"host", lambda made: ORIGINS.is_own(b"http://127.0.0.1", made)),
    "site": (b"sec-fetch-site", ORIGINS.refuses_cross_site),
    "type": (b"content-type", bodies.is_json),
    "signature": (
        b"x-action-signature",
        lambda made: signatures.matches(made.header(b"x-action-signature").decode("latin-1"), b"", {1: b"a"}),
    ),
    "request id": (b"x-request-id", lambda made: made.request_id),
    "head of the answer": (b"origin", lambda made: HEADS.write(made, 200, b"", 0)),
}


@pytest.mark.parametrize("reader", READERS)
def test_headers(reader: str) -> None:
    """One field of 16 kB, and as many fields as a head has room for."""
    name, read = READERS[reader]
    inputs = {what: request((name, value)) for what, value in VALUES.items()}
    inputs["many fields"] = request(*[(name, b"a")] * (HEAD_BYTES // (len(name) + 4)))
    check((what, partial(read, made)) for what, made in inputs.items())


@pytest.mark.parametrize(
    "read",
    [read_query, read_limit, lambda query: query_token(request(target=b"/?token&" + query))],
    ids=["watching", "limit", "token"],
)
def test_queries(read: Callable[[bytes], object]) -> None:
    """As long as a head, and as long as a query may be."""
    check(
        (f"{what}, {size} bytes", partial(read, value[:size]))
        for what, value in VALUES.items()
        for size in (HEAD_BYTES, MAX_QUERY_BYTES)
    )


# ---- HTTP itself ----------------------------------------------------------------------------------------------------

START = b"GET / HTTP/1.1\r\nHost: t\r\n"
POSTED = b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
HEADS_AND_BODIES = {
    "tiny fields": filled(START, "a:b\r\n"),
    "fields without end": filled(START + b"a:b\r\n" * 98, "x"),
    "a hundred fields and a body": filled(
        b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 16000\r\n" + b"a:b\r\n" * 90 + b"\r\n", "x", size=16_500
    ),
    "a long target": filled("GET /", "%2e/", " HTTP/1.1\r\nHost: t\r\n\r\n"),
    "smallest requests": filled("", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
    "ends of heads in a body": filled("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 16000\r\n\r\n", "\r\n\r\n"),
    "chunks of one byte": filled(POSTED, "1\r\nx\r\n"),
    "chunk extensions": filled(POSTED + b"1;", "a;"),
    "trailers": filled(POSTED + b"0\r\n", "a:b\r\n"),
    "empty lines": filled("", "\r\n"),
    "digits of a length": filled("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: ", "9", "\r\n\r\n"),
    "a long host": filled("GET / HTTP/1.1\r\nHost: ", "a.", "\r\n\r\n"),
    "names of an upgrade": filled(
        "GET /live HTTP/1.1\r\nHost: t\r\nConnection: upgrade\r\nUpgrade: ", "a,", "\r\n\r\n"
    ),
}


class Reader:
    """Feeds a parser read by read, as a connection does, and measures the longest step."""

    def __init__(self, data: bytes, step: int = READ_BYTES) -> None:
        self._parser = RequestParser(request().socket, b"/live")
        self.longest_ms = 0.0
        for at in range(0, len(data), step):
            began = thread_time()
            self._feed(data[at : at + step])
            self.longest_ms = max(self.longest_ms, (thread_time() - began) * 1000)

    def _feed(self, data: bytes) -> None:
        parser = self._parser
        if parser.refusal is None:
            parser.feed(data)
        for _ in range(YIELD_EVERY):  # then other tasks run
            if not parser.queue:
                break
            NORMAL_PATH(parser.queue.pop(0).path)
            parser.resume()
        parser.queue.clear()
        parser.unparsed = b""


@pytest.mark.parametrize("name", HEADS_AND_BODIES)
def test_what_the_parser_reads(name: str) -> None:
    """Heads and bodies of 16 kB, in the pieces that a connection reads: no step blocks the loop for long."""
    longest = min(Reader(HEADS_AND_BODIES[name]).longest_ms for _ in range(RUNS))
    assert longest < LONGEST_MS
