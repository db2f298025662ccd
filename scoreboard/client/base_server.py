"""What a game's own server does with a server key: users, sessions, actions in bulk. On any loop; both clients'
`ServerClient` have these methods.

A request without an answer is tried again with the same bytes. An action has its id and its time from `action` on, so a
list that is submitted again counts once: what was recorded comes back as `replayed`.

Tested in tests/client/test_server.py.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import msgspec
from msgspec import UNSET, UnsetType

from scoreboard.client.clock import ServerClock
from scoreboard.client.exchanges import (
    JSON,
    Credentials,
    Outcome,
    Send,
    Steps,
    logged_in_decoder,
    read_answer,
    refused_answer,
    request,
    run_steps,
)
from scoreboard.domain.paths import BULK_PATH, SERVER_SESSIONS_PATH, SERVER_USERS_PREFIX

MAX_REQUEST_ACTIONS = 500  # the server's own bounds
MAX_REQUEST_BYTES = 262_144


class ServerUser(msgspec.Struct, frozen=True):
    """A user whom the game's server knows by `externalId`. `username`: the name that the user has now."""

    userId: str
    externalId: str
    username: str


class BulkAction(msgspec.Struct, frozen=True, omit_defaults=True):
    """One action of a user, made by `action`. `timestamp` is RFC 3339."""

    actionId: str
    actionType: str
    timestamp: str
    externalId: str | None = None
    userId: str | None = None
    metadata: Mapping[str, Any] | None = None
    points: int | None = None


class BulkOutcome(msgspec.Struct, frozen=True):
    """What became of one action. `status` is the HTTP status that it would have alone; `outcome` is there when it
    counts, from an earlier request too (`outcome.replayed`); else `code` and `detail` say why it does not, or not yet
    (202: it waits for a decision)."""

    status: int
    outcome: Outcome | None = None
    code: str = ""
    detail: str = ""


class _User(msgspec.Struct):
    data: ServerUser


class _One(msgspec.Struct):
    status: int
    data: msgspec.Raw = msgspec.Raw()
    code: str = ""
    detail: str = ""


class _Outcomes(msgspec.Struct):
    outcomes: list[_One]


class _Bulk(msgspec.Struct):
    data: _Outcomes


_user = msgspec.json.Decoder(_User)
_bulk = msgspec.json.Decoder(_Bulk)
_outcome = msgspec.json.Decoder(Outcome)
_encode = msgspec.json.Encoder().encode

_BEGIN, _END = b'{"actions":[', b"]}"


# ---- pure -----------------------------------------------------------------------------------------------------------


def bodies(actions: Sequence[BulkAction]) -> Iterator[bytes]:
    """Bodies that hold the actions in their order, each within the server's bounds. An action that is larger than a
    body may be has a body of its own, which the server refuses."""
    part: list[bytes] = []
    size = 0
    for action in actions:
        text = _encode(action)
        if part and (len(part) == MAX_REQUEST_ACTIONS or size + len(text) + 1 > MAX_REQUEST_BYTES):
            yield _BEGIN + b",".join(part) + _END
            part, size = [], 0
        if not part:
            size = len(_BEGIN) + len(_END)
        part.append(text)
        size += len(text) + 1
    if part:
        yield _BEGIN + b",".join(part) + _END


def _read_outcome(one: _One) -> BulkOutcome:
    outcome = None
    if one.status in {200, 409} and bytes(one.data):
        outcome = _outcome.decode(one.data)
        if one.status == httpx.codes.CONFLICT:
            outcome = msgspec.structs.replace(outcome, replayed=True)
    return BulkOutcome(one.status, outcome, one.code, one.detail)


# ---- the methods ----------------------------------------------------------------------------------------------------


class BaseServerClient:
    """`now` (seconds, the loop's clock) and `sleep` are the loop's own."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        key: str,
        *,
        retry_seconds: float,
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self.clock = ServerClock()
        self._http, self._retry_seconds, self._now, self._sleep = http, retry_seconds, now, sleep
        self._headers = JSON | {"authorization": f"Bearer {key}"}

    async def put_user(
        self, external_id: str, *, username: str | None = None, avatar_url: str | UnsetType | None = UNSET
    ) -> ServerUser:
        """The user of this external id, who is made if there is none. `username` is the wanted name: where it is taken
        a new user gets one like it, and a user who is there keeps the present one. `avatar_url` None removes the
        picture.

        Needs the scope `users`. Raises Refused and Unreachable, and ValueError for an id that a path can't have: with
        a slash or a backslash, or only dots. Calling it again does no harm.
        """
        if not external_id.strip(".") or "/" in external_id or "\\" in external_id:
            raise ValueError(f"an external id has no slash and is not empty: {external_id!r}")
        body: dict[str, Any] = {} if username is None else {"username": username}
        if avatar_url is not UNSET:
            body["avatarUrl"] = avatar_url
        answer = await self._run(self._send("PUT", SERVER_USERS_PREFIX + quote(external_id, safe=""), _encode(body)))
        return read_answer(_user, answer).data

    async def open_session(self, *, external_id: str | None = None, user_id: str | None = None) -> Credentials:
        """Credentials of a new session, to be handed to the user's own client, for the user of either id.

        Needs the scope `sessions`. Raises Refused (404: there is no such user) and Unreachable.
        """
        body = {"externalId": external_id, "userId": user_id}
        sent = _encode({name: value for name, value in body.items() if value is not None})
        return read_answer(logged_in_decoder, await self._run(self._send("POST", SERVER_SESSIONS_PATH, sent))).data

    def action(
        self,
        action_type: str,
        metadata: Mapping[str, Any] | None = None,
        *,
        external_id: str | None = None,
        user_id: str | None = None,
        points: int | None = None,
        action_id: str | None = None,
    ) -> BulkAction:
        """An action that happened now, for `submit_many`. `points`: only for types with `free_points`. `action_id`: 1
        to 100 characters, a UUID by default."""
        now = datetime.fromtimestamp(self.clock.now(), UTC).isoformat(timespec="milliseconds")
        return BulkAction(action_id or str(uuid4()), action_type, now, external_id, user_id, metadata, points)

    async def submit_many(self, actions: Sequence[BulkAction]) -> list[BulkOutcome]:
        """Submits any number of actions, 500 a request, one request after the other. Returns the outcomes in order.

        Needs the scope `scores`. Raises Refused (429 with `retry_after` among it) and Unreachable; then, and after a
        cancellation, some of the actions may be recorded. Submit the same list again within five minutes: nothing
        counts twice, and each action has its outcome.
        """
        outcomes: list[BulkOutcome] = []
        for body in bodies(actions):
            answer = await self._run(self._send("POST", BULK_PATH, body))
            outcomes += map(_read_outcome, read_answer(_bulk, answer).data.outcomes)
        return outcomes

    def _send(self, method: str, path: str, body: bytes) -> Steps[httpx.Response]:
        send = Send(method, path, body, self._headers)
        answer = yield from request(send, now=self._now, retry_seconds=self._retry_seconds)
        if answer.status_code != httpx.codes.OK:
            raise refused_answer(answer)
        return answer

    async def _run(self, steps: Steps[httpx.Response]) -> httpx.Response:
        return await run_steps(steps, self._http, self.clock, sleep=self._sleep)
