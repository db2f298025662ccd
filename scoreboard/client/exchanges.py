"""One user's requests: what to send, when to send it again, what an answer means (Sans-I/O).

A use case is a generator of steps. It yields a step and is sent the result: the answer to a `Send`, None for the
others. A failure is thrown into it: httpx.TransportError for a `Send` without an answer, ClientError for a `Refresh`.
`run_steps` is the one loop that does so. It is given `sleep` and `refresh`, so it runs on Trio and on asyncio.
`Session` of either client is a `SessionState` that can wait.

Tested in tests/client/test_session.py.
"""

import secrets
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from math import inf
from typing import Any, TypeAlias, TypeVar
from uuid import uuid4

import httpx
import msgspec

from scoreboard.client.backoff import Backoff, seconds
from scoreboard.client.clock import TOLERANCE_SECONDS, ServerClock
from scoreboard.client.errors import ActionHeld, ClientError, Refused, Unreachable, refused
from scoreboard.domain.actions import DECODE_ERRORS
from scoreboard.domain.paths import (
    EVIDENCE_PREFIX,
    EXCHANGE_PATH,
    GUEST_PATH,
    LINK_PATH,
    LOGIN_PATH,
    LOGOUT_PATH,
    REFRESH_PATH,
    START_PATH,
    SUBMIT_PATH,
)
from scoreboard.security.signing import sign

T = TypeVar("T")

RETRY_SECONDS = 30.0  # that a request is tried again; far less than the 5 minutes after which an action is too old
REFRESH_AHEAD_SECONDS = 60.0  # before its end a token is renewed, or a fifth of its life before if that is less
DEVICE_KEY_BYTES = 32  # random; far more than anybody can guess
LOG_OUT_TIMEOUT_SECONDS = 2.0  # that leaving `log_in` may take
UNAVAILABLE_STATUSES = frozenset({502, 503, 504})  # tried again

JSON = {"content-type": "application/json"}
BLOB = {"content-type": "application/octet-stream"}


# ---- values ---------------------------------------------------------------------------------------------------------


class Credentials(msgspec.Struct, frozen=True):
    """The result of a log-in. Without a `refreshToken` it ends with its access token, `expiresIn` seconds after it was
    issued."""

    userId: str
    accessToken: str
    actionSecret: str
    actionKeyVersion: int
    expiresIn: float = inf
    username: str = ""
    refreshToken: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.userId})"  # a log must not show the secrets


class Outcome(msgspec.Struct, frozen=True):
    """The result of an action. `newRank` is None while the server can't read it; `timestamp` (RFC 3339 UTC) is when it
    was recorded."""

    userId: str
    previousScore: int
    pointsAwarded: int
    newScore: int
    newRank: int | None
    timestamp: str
    replayed: bool = False  # recorded by an earlier request with the same action id


class Started(msgspec.Struct, frozen=True):
    """The start of an action: the action that names `startId` counts once, and until `expiresAt` (RFC 3339 UTC)."""

    startId: str
    expiresAt: str


class _Recorded(msgspec.Struct):
    data: Outcome | None = None


class _HeldAction(msgspec.Struct):
    actionId: str
    status: str
    points: int
    expiresAt: str
    reason: str | None = None


class _Held(msgspec.Struct):
    data: _HeldAction


class _StartAnswer(msgspec.Struct):
    data: Started


class _LoggedIn(msgspec.Struct):
    data: Credentials


_recorded = msgspec.json.Decoder(_Recorded)
_held = msgspec.json.Decoder(_Held)
_started = msgspec.json.Decoder(_StartAnswer)
logged_in_decoder = msgspec.json.Decoder(_LoggedIn)


# ---- steps ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """One request, once."""

    method: str
    path: str
    body: bytes | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Wait:
    """A pause of so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Refresh:
    """New credentials. `instead_of`: the access token that was refused; if it is not the present one, nothing is
    done."""

    instead_of: str = field(default="", repr=False)


Steps: TypeAlias = Generator[Send | Wait | Refresh, Any, T]


async def no_session(_instead_of: str) -> None:
    """The `refresh` of steps that never ask for it: a log-in's."""
    raise AssertionError("there is no session to refresh")


async def run_steps(
    steps: Steps[T],
    http: httpx.AsyncClient,
    clock: ServerClock,
    *,
    sleep: Callable[[float], Awaitable[object]],
    refresh: Callable[[str], Awaitable[None]] = no_session,
) -> T:
    """Runs the steps and returns their result. Every answer sets the clock. Cancelling ends what is awaited."""
    feed = partial(steps.send, None)
    while True:
        try:
            step = feed()
        except StopIteration as stop:
            result: T = stop.value
            return result
        came: httpx.Response | None = None
        try:
            match step:
                case Send(method, path, body, headers):
                    came = await http.request(method, path, content=body, headers=headers)
                    clock.measure(came.headers.get("date"))
                case Wait(pause):
                    await sleep(pause)
                case Refresh(instead_of):
                    await refresh(instead_of)
        except (httpx.TransportError, ClientError) as exc:
            feed = partial(steps.throw, exc)
        else:
            feed = partial(steps.send, came)


def request(send: Send, *, now: Callable[[], float], retry_seconds: float) -> Steps[httpx.Response]:
    """The same request until there is an answer, for `retry_seconds` and at least once, honouring `Retry-After`.

    Returns the answer, whatever its status; the last one if all were 502, 503 or 504. Raises Unreachable if none came.
    """
    give_up, backoff = now() + retry_seconds, Backoff()
    while True:
        answer: httpx.Response | None = None
        why = ""
        try:
            answer = yield send
        except httpx.UnsupportedProtocol:
            raise  # the address is wrong and stays so
        except httpx.TransportError as exc:
            why = f"{send.method} {send.path}: {_cause(exc)!r}"
        if answer is not None and answer.status_code not in UNAVAILABLE_STATUSES:
            return answer
        wait = backoff.next(_retry_after(answer) if answer is not None else None)
        if now() + wait < give_up:
            yield Wait(wait)
        elif answer is not None:
            return answer
        else:
            raise Unreachable(why)


def by_password(username: str, password: str) -> Send:
    """A log-in."""
    return Send("POST", LOGIN_PATH, msgspec.json.encode({"username": username, "password": password}), JSON)


def by_token(token: str) -> Send:
    """A log-in with a token of an outside issuer."""
    return Send("POST", EXCHANGE_PATH, msgspec.json.encode({"token": token}), JSON)


def log_in_steps(log_in: Send, *, now: Callable[[], float], retry_seconds: float) -> Steps[Credentials]:
    """A new session's credentials."""
    answer = yield from request(log_in, now=now, retry_seconds=retry_seconds)
    if answer.status_code != httpx.codes.OK:
        raise refused_answer(answer)
    return read_answer(logged_in_decoder, answer).data


def new_device_key() -> str:
    """A random key, by which a guest is known: 43 characters. Whoever has it plays as this guest, so keep it secret."""
    return secrets.token_urlsafe(DEVICE_KEY_BYTES)


def by_device_key(device_key: str, username: str | None) -> Send:
    """A log-in as the key's guest. `username`: for a new guest."""
    who = {"deviceKey": device_key} if username is None else {"deviceKey": device_key, "username": username}
    return Send("POST", GUEST_PATH, msgspec.json.encode(who), JSON)


class SessionState:
    """One user's session: its credentials, and the steps of what it can do.

    `now` gives seconds that never go back, whatever is done to the machine's clock: they say when a token is due.
    """

    def __init__(
        self, credentials: Credentials, *, retry_seconds: float, now: Callable[[], float], clock: ServerClock | None
    ) -> None:
        self._now, self._retry_seconds = now, retry_seconds
        self.clock = clock or ServerClock()
        self._set_credentials(credentials)

    def _set_credentials(self, credentials: Credentials) -> None:
        self.credentials = credentials
        ahead = min(REFRESH_AHEAD_SECONDS, credentials.expiresIn / 5)
        # The loop's clock: when the token is renewed, inf when it can't be.
        self.renewal = self._now() + credentials.expiresIn - ahead if credentials.refreshToken else inf

    @property
    def user(self) -> str:
        """The user's id."""
        return self.credentials.userId

    @property
    def is_due(self) -> bool:
        """Whether the access token is to be renewed before it is used."""
        return self._now() >= self.renewal

    def headers(self, body: bytes | None = None) -> dict[str, str]:
        """The headers of a request as this user. With the `body` of an action: also the signature of these bytes."""
        fields = {"authorization": f"Bearer {self.credentials.accessToken}"}
        if body is not None:
            signature = sign(self.credentials.actionSecret.encode(), body)
            fields |= JSON | {"x-action-signature": f"v{self.credentials.actionKeyVersion}.{signature}"}
        return fields

    def submit_steps(
        self,
        action_type: str,
        metadata: Mapping[str, Any] | None,
        action_id: str | None,
        start_id: str | None = None,
        evidence: bytes | None = None,
    ) -> Steps[Outcome]:
        """An action, signed and posted, after its evidence. If its timestamp was refused and the refusal showed that
        our clock is wrong, it is sent once more."""
        action_id = action_id or str(uuid4())
        action: dict[str, Any] = {"actionId": action_id, "actionType": action_type}
        if metadata is not None:
            action["metadata"] = metadata
        if start_id is not None:
            action["startId"] = start_id
        try:
            if evidence is not None:
                action["evidence"] = {"sha256": sha256(evidence).hexdigest(), "size": len(evidence)}
                yield from self._upload(action["evidence"]["sha256"], evidence)
            offset = self.clock.offset
            answer = yield from self._post(action)
            if _has_untimely_timestamp(answer) and abs(self.clock.offset - offset) > TOLERANCE_SECONDS:
                answer = yield from self._post(action)
        except Unreachable as exc:
            raise Unreachable(str(exc), action_id) from exc
        if answer.status_code == httpx.codes.ACCEPTED:
            held = read_answer(_held, answer).data
            raise ActionHeld(held.actionId, held.status, held.points, held.expiresAt, held.reason)
        outcome = read_answer(_recorded, answer).data if answer.status_code in {200, 409} else None
        if outcome is None:
            raise refused_answer(answer)
        return outcome if answer.status_code == httpx.codes.OK else msgspec.structs.replace(outcome, replayed=True)

    def _post(self, action: dict[str, Any]) -> Steps[httpx.Response]:
        stamped = action | {
            "timestamp": datetime.fromtimestamp(self.clock.now(), UTC).isoformat(timespec="milliseconds")
        }
        return (yield from self._authorized("POST", SUBMIT_PATH, msgspec.json.encode(stamped)))

    def start_steps(self, action_type: str) -> Steps[Started]:
        """The start of an action. Without an answer it is asked for again: a start that nobody uses does no harm."""
        body = msgspec.json.encode({"actionType": action_type})
        answer = yield from self._authorized("POST", START_PATH, body, JSON)
        if answer.status_code != httpx.codes.CREATED:
            raise refused_answer(answer)
        return read_answer(_started, answer).data

    def _upload(self, digest: str, evidence: bytes) -> Steps[None]:
        answer = yield from self._authorized("PUT", EVIDENCE_PREFIX + digest, evidence, BLOB)
        if answer.status_code != httpx.codes.NO_CONTENT:
            raise refused_answer(answer)

    def refresh_steps(self) -> Steps[None]:
        """Exchanges the refresh token for new credentials. The caller holds a lock: two at once would
        use the same token."""
        body = msgspec.json.encode({"refreshToken": self.credentials.refreshToken})
        answer = yield from request(
            Send("POST", REFRESH_PATH, body, JSON), now=self._now, retry_seconds=self._retry_seconds
        )
        if answer.status_code != httpx.codes.OK:
            raise refused_answer(answer)
        self._set_credentials(read_answer(logged_in_decoder, answer).data)

    def link_steps(self, email: str, password: str, username: str | None) -> Steps[None]:
        """Makes an account of a guest, and takes over its first session."""
        account = {"email": email, "password": password} | ({} if username is None else {"username": username})
        answer = yield from self._authorized("POST", LINK_PATH, msgspec.json.encode(account), JSON)
        if answer.status_code != httpx.codes.OK:
            raise refused_answer(answer)
        self._set_credentials(read_answer(logged_in_decoder, answer).data)

    def is_refreshed(self, used: str, instead_of: str) -> bool:
        """Whether another task has refreshed meanwhile: `used` was the refresh token, `instead_of` the access token
        that was refused."""
        return self.credentials.refreshToken != used or bool(instead_of and instead_of != self.credentials.accessToken)

    def log_out_steps(self) -> Steps[None]:
        """Ends the session on the server."""
        answer = yield from self._authorized("POST", LOGOUT_PATH)
        if answer.status_code != httpx.codes.NO_CONTENT:
            raise refused_answer(answer)

    def _authorized(
        self, method: str, path: str, body: bytes | None = None, fields: Mapping[str, str] | None = None
    ) -> Steps[httpx.Response]:
        """One request as the user; once more with a new token when the old one is refused, or with a new action secret
        when the key of the old one was revoked. A body without `fields` is an action, and is signed."""

        def send() -> Send:
            return Send(method, path, body, self.headers(body) if fields is None else {**self.headers(), **fields})

        if self.is_due:
            yield Refresh()
        token = self.credentials.accessToken
        answer = yield from request(send(), now=self._now, retry_seconds=self._retry_seconds)
        if self.credentials.refreshToken and (
            answer.status_code == httpx.codes.UNAUTHORIZED
            or (answer.status_code == httpx.codes.FORBIDDEN and refused_answer(answer).code == "INVALID_SIGNATURE")
        ):
            yield Refresh(instead_of=token)
            answer = yield from request(send(), now=self._now, retry_seconds=self._retry_seconds)
        return answer


# ---- answers --------------------------------------------------------------------------------------------------------


def _cause(exc: BaseException) -> BaseException:
    """What an exception came from, as far as that has words: the outermost ones of httpx may have none. Of a group
    (Trio tries every address of a name) the first one."""
    inner = exc.exceptions[0] if isinstance(exc, BaseExceptionGroup) else exc.__cause__ or exc.__context__
    found = _cause(inner) if inner is not None else exc
    return found if str(found) else exc


def _has_untimely_timestamp(answer: httpx.Response) -> bool:
    """Whether an action was refused because of its time."""
    return answer.status_code == httpx.codes.BAD_REQUEST and any(
        isinstance(error, dict) and error.get("field") == "timestamp" for error in refused_answer(answer).errors
    )


def _retry_after(answer: httpx.Response) -> float | None:
    return seconds(answer.headers.get("retry-after"))


def read_answer(decoder: msgspec.json.Decoder[T], answer: httpx.Response) -> T:
    """The body of an answer of the scoreboard's. Raises Refused for a page of some portal or proxy on the way."""
    try:
        return decoder.decode(answer.content)
    except DECODE_ERRORS as exc:
        raise refused_answer(answer) from exc


def refused_answer(answer: httpx.Response) -> Refused:
    return refused(answer.status_code, answer.content, _retry_after(answer))
