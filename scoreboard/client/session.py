"""One user's session over HTTP: signed actions, tokens that are renewed before they expire, log-in and log-out.

`log_in` opens one; a `Session` can also be made from credentials that came another way (`scoreboard users tokens`). Every request is tried
again while nobody answers, with the same bytes: an action is known by its id, so however often it arrives it counts once.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from math import inf
from typing import Any, TypeVar
from uuid import uuid4

import httpx
import msgspec
import trio

from scoreboard.client.backoff import Backoff, seconds
from scoreboard.client.errors import ClientError, Unreachable, refused
from scoreboard.domain.actions import DECODE_ERRORS
from scoreboard.security.signatures import sign

T = TypeVar("T")

ANSWER_SECONDS = 10.0  # for one answer; the server gives up after 3 s
PATIENCE = 30.0  # seconds that a request is tried again; far less than the 5 minutes after which an action is too old
REFRESH_AHEAD = 60.0  # seconds before its end that a token is renewed, or a fifth of its life if that is less
LOG_OUT_SECONDS = 2.0  # that leaving `log_in` may take
AWAY = frozenset({502, 503, 504})  # answers that say: nobody there at the moment

SUBMIT = "/api/v1/scores/action"
LOG_IN = "/api/v1/auth/login"
REFRESH = "/api/v1/auth/refresh"
LOG_OUT = "/api/v1/auth/logout"


class Credentials(msgspec.Struct, frozen=True):
    """What a log-in gives. Without a `refreshToken` it ends with its access token, `expiresIn` seconds after it was issued."""

    userId: str
    accessToken: str
    actionSecret: str
    actionKeyVersion: int
    expiresIn: float = inf
    username: str = ""
    refreshToken: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.userId})"  # whatever prints it, the secrets stay


class Outcome(msgspec.Struct, frozen=True):
    """What an action gave. `newRank` is None while the server can't tell; `timestamp` is RFC 3339 UTC, when it was recorded."""

    userId: str
    previousScore: int
    pointsAwarded: int
    newScore: int
    newRank: int | None
    timestamp: str
    replayed: bool = False  # recorded by an earlier request with the same action id


class _Recorded(msgspec.Struct):
    data: Outcome | None = None


class _LoggedIn(msgspec.Struct):
    data: Credentials


_recorded = msgspec.json.Decoder(_Recorded)
_logged_in = msgspec.json.Decoder(_LoggedIn)


class Session:
    """One user's. `http` has the server as its `base_url` and is the caller's to close. Several tasks may use a session at once."""

    def __init__(self, http: httpx.AsyncClient, credentials: Credentials, *, patience: float = PATIENCE) -> None:
        """`patience`: seconds that a request is tried again while nobody answers."""
        self._http, self._patience = http, patience
        self._renewing = trio.Lock()
        self._take(credentials)

    def _take(self, credentials: Credentials) -> None:
        self.credentials = credentials
        ahead = min(REFRESH_AHEAD, credentials.expiresIn / 5)
        # Trio's clock: when the token is renewed, inf when it can't be.
        self.renewal = trio.current_time() + credentials.expiresIn - ahead if credentials.refreshToken else inf

    @property
    def user(self) -> str:
        """The user's id."""
        return self.credentials.userId

    # ---- actions ----------------------------------------------------------------------------------------------------

    async def submit(self, action_type: str, metadata: Mapping[str, Any] | None = None, *, action_id: str | None = None) -> Outcome:
        """Signs an action, posts it, and returns what it gave.

        `action_id`: 1 to 100 characters, an UUID of its own by default. Give the one of an action whose outcome is unknown, with the same
        type and metadata, to learn it: it can't count twice.

        Raises Refused (429 among it, with `retry_after` in seconds and `layer`: not tried again here) and Unreachable. Cancelling leaves
        open whether the action was recorded.
        """
        action: dict[str, Any] = {
            "actionId": action_id or str(uuid4()),
            "actionType": action_type,
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        if metadata is not None:
            action["metadata"] = metadata
        body = msgspec.json.encode(action)
        try:
            answer = await self._authorized("POST", SUBMIT, body)
        except Unreachable as exc:
            raise Unreachable(str(exc), action["actionId"]) from exc
        outcome = _read(_recorded, answer).data if answer.status_code in {200, 409} else None
        if outcome is None:
            raise _refused(answer)
        return outcome if answer.status_code == httpx.codes.OK else msgspec.structs.replace(outcome, replayed=True)

    def headers(self, body: bytes | None = None) -> dict[str, str]:
        """The headers of a request as this user; of an action, with the signature of the very bytes of its `body`."""
        fields = {"authorization": f"Bearer {self.credentials.accessToken}"}
        if body is not None:
            signature = sign(self.credentials.actionSecret.encode(), body)
            fields |= {"content-type": "application/json", "x-action-signature": f"v{self.credentials.actionKeyVersion}.{signature}"}
        return fields

    # ---- the session itself -----------------------------------------------------------------------------------------

    async def token(self) -> str:
        """An access token with some life in it, renewed if need be. Raises as `refresh`."""
        if trio.current_time() >= self.renewal:
            await self.refresh()
        return self.credentials.accessToken

    async def refresh(self, *, instead_of: str = "") -> None:
        """Exchanges the refresh token for new credentials. `instead_of`: a token that was refused; if it is not ours any more all is done.

        Raises Refused (401: the session has ended, log in again) and Unreachable. A cancelled refresh is safe to repeat within ten seconds;
        later the server takes the spent token for a stolen one and ends the session.
        """
        spent = self.credentials.refreshToken
        async with self._renewing:  # two tasks, one refresh
            if self.credentials.refreshToken != spent or (instead_of and instead_of != self.credentials.accessToken):
                return
            body = msgspec.json.encode({"refreshToken": spent})
            answer = await request(self._http, "POST", REFRESH, body, {"content-type": "application/json"}, patience=self._patience)
            if answer.status_code != httpx.codes.OK:
                raise _refused(answer)
            self._take(_read(_logged_in, answer).data)

    async def log_out(self) -> None:
        """Ends the session: its tokens are void, on every node within two seconds. Raises Refused and Unreachable."""
        answer = await self._authorized("POST", LOG_OUT)
        if answer.status_code != httpx.codes.NO_CONTENT:
            raise _refused(answer)

    async def _authorized(self, method: str, path: str, body: bytes | None = None) -> httpx.Response:
        """One request as the user; once more with a new token when the old one is refused."""
        token = await self.token()
        answer = await request(self._http, method, path, body, self.headers(body), patience=self._patience)
        if answer.status_code == httpx.codes.UNAUTHORIZED and self.credentials.refreshToken:
            await self.refresh(instead_of=token)
            answer = await request(self._http, method, path, body, self.headers(body), patience=self._patience)
        return answer


@asynccontextmanager
async def log_in(url: str, username: str, password: str, *, patience: float = PATIENCE) -> AsyncIterator[Session]:
    """Logs in at `url` (http or https, without a path) and out at the end of the block, then for at most two seconds.

    `username` may be the e-mail address; `patience` as in Session. Raises Refused (401: wrong; 429: too many tries) and Unreachable.
    """
    async with httpx.AsyncClient(base_url=url, timeout=ANSWER_SECONDS) as http:
        body = msgspec.json.encode({"username": username, "password": password})
        answer = await request(http, "POST", LOG_IN, body, {"content-type": "application/json"}, patience=patience)
        if answer.status_code != httpx.codes.OK:
            raise _refused(answer)
        session = Session(http, _read(_logged_in, answer).data, patience=patience)
        try:
            yield session
        finally:
            with trio.move_on_after(LOG_OUT_SECONDS, shield=True):
                try:
                    await session.log_out()
                except ClientError:
                    pass  # it ends by itself, or has


async def request(
    http: httpx.AsyncClient, method: str, path: str, body: bytes | None, headers: Mapping[str, str], *, patience: float
) -> httpx.Response:
    """Sends the same request until somebody answers, for `patience` seconds and at least once, honouring `Retry-After`.

    Returns the answer, whatever its status; the last one when they all said that nobody is there. Raises Unreachable when none came.
    """
    give_up, backoff = trio.current_time() + patience, Backoff()
    while True:
        answer: httpx.Response | None = None
        why = ""
        try:
            answer = await http.request(method, path, content=body, headers=headers)
        except httpx.UnsupportedProtocol:
            raise  # the address is wrong and stays so
        except httpx.TransportError as exc:
            why = f"{method} {path}: {exc!r}"
        if answer is not None and answer.status_code not in AWAY:
            return answer
        wait = backoff.next(_retry_after(answer) if answer is not None else None)
        if trio.current_time() + wait < give_up:
            await trio.sleep(wait)
        elif answer is not None:
            return answer
        else:
            raise Unreachable(why)


def _retry_after(answer: httpx.Response) -> float | None:
    return seconds(answer.headers.get("retry-after"))


def _read(decoder: msgspec.json.Decoder[T], answer: httpx.Response) -> T:
    """The body of an answer of the scoreboard's. Raises Refused for a page of some portal or proxy on the way."""
    try:
        return decoder.decode(answer.content)
    except DECODE_ERRORS as exc:
        raise _refused(answer) from exc


def _refused(answer: httpx.Response) -> ClientError:
    return refused(answer.status_code, answer.content, _retry_after(answer))
