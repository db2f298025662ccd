"""Asks the server that an action type names (`webhook` in the actions file) whether an action is accepted.

Called by operations.submit_action before an action is queued. Anything but a clear answer within a second is a 503:
nothing was recorded, and the same action id may be sent again. Never decides about duplicates and limits, which come
with the recording; so the server may be asked about an action more than once.

The request is a POST of JSON: userId, actionId, actionType, timestamp, metadata, points. It is signed as
`X-Scoreboard-Signature: t=<unix seconds>,v1=<hex HMAC-SHA256(secret, t + "." + body)>`. The answer is
`{"accept": true | false}`, optionally with `reason` and with `points`, which may be fewer than the rule gives.

Tested in tests/operations/test_webhooks.py.
"""

import hmac
from collections.abc import Awaitable, Callable
from hashlib import sha256
from time import monotonic, time
from typing import Annotated
from uuid import UUID

import msgspec
import structlog
from msgspec import Meta

from scoreboard.domain.actions import DECODE_ERRORS, invalid
from scoreboard.domain.boards import rfc3339
from scoreboard.domain.errors import Refusal
from scoreboard.domain.outcomes import SubmittedAction, out_of_service, too_many_actions
from scoreboard.domain.scoring import WebhookRule
from scoreboard.domain.sliding_window import SlidingWindow
from scoreboard.drivers.https_client import Answer, HttpsClient, RequestFailure
from scoreboard.runtime.breaker import Breaker, State
from scoreboard.telemetry import metrics

TIMEOUT_SECONDS = 1.0  # an action's client waits so long, and then up to 3 s for the recording
MAX_ASKED_AT_ONCE = 64  # of all users; the client has 16 connections, so a queue of three; full: 503
MAX_ANSWER_BYTES = 4_096
MAX_REASON_LENGTH = 200  # characters of the server's reason that a user is shown
# Between two tries of a server that failed three times in a row. It gets one action as a probe.
PROBE_INTERVAL_SECONDS = 2.0
SIGNATURE_FIELD = "x-scoreboard-signature"

NOT_ANSWERED = out_of_service(
    "The game's server could not be asked. Nothing was recorded. Send the same actionId again."
)
TOO_MANY_ASKED = out_of_service(
    "The game's server is being asked about too many actions. Send the same actionId again."
)

log = structlog.get_logger()


class _Verdict(msgspec.Struct):
    """The server's answer. It may have other fields, which are ignored."""

    accept: bool
    reason: str | None = None
    points: Annotated[int, Meta(ge=1)] | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Verdict).decode


# ---- pure -----------------------------------------------------------------------------------------------------------


def sign(secret: str, seconds: int, body: bytes) -> str:
    """The value of X-Scoreboard-Signature for this body at this Unix time."""
    mac = hmac.new(secret.encode(), b"%d.%b" % (seconds, body), sha256).hexdigest()
    return f"t={seconds},v1={mac}"


def question(action: SubmittedAction, points: int) -> bytes:
    """The body of the request."""
    return _encode(
        {
            "userId": str(action.user),
            "actionId": action.action_id,
            "actionType": action.action_type,
            "timestamp": rfc3339(action.timestamp_ms),
            "metadata": None if action.metadata is None else msgspec.Raw(action.metadata.encode()),
            "points": points,
        }
    )


def read_answer(answer: Answer, points: int) -> int | Refusal | None:
    """The points, or why the server refuses the action. None: it is no answer to the question."""
    if answer.status != 200:
        return None
    try:
        verdict = _decode(answer.content)
    except (*DECODE_ERRORS, ValueError):
        return None
    if not verdict.accept:
        reason = "".join(char for char in verdict.reason or "" if char.isprintable())[:MAX_REASON_LENGTH]
        return invalid("body", f"is refused by the game's server{f': {reason}' if reason else ''}")
    if verdict.points is None:
        return points
    return verdict.points if verdict.points <= points else None


# ---- asking ---------------------------------------------------------------------------------------------------------


class Webhooks:
    """One for a node. `is_known` says whether a user's action id was processed before: then nobody is asked.

    `per_minute`: of one user and on this node; 0: no limit. It protects the game's server, as the exact limit comes
    only with the recording.
    """

    __slots__ = ("_asked_at_once", "_breakers", "_client", "_clock", "_is_known", "_window")

    def __init__(
        self,
        client: HttpsClient,
        is_known: Callable[[UUID, str], Awaitable[bool]],
        *,
        per_minute: int,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._client, self._is_known, self._clock = client, is_known, clock
        self._window = SlidingWindow(per_minute)
        self._breakers: dict[str, Breaker] = {}  # by URL: at most as many as action types
        self._asked_at_once = 0

    async def ask(self, rule: WebhookRule, action: SubmittedAction) -> int | Refusal:
        """The points of the action, or why it is refused. A refusal of the server is INVALID_ACTION: it is a rule's,
        and the limits and duplicates go before it. Every other refusal is an answer by itself.

        Returns within TIMEOUT_SECONDS and a call to PostgreSQL. Cancelling closes the connection to the server. Raises
        StorageUnavailable.
        """
        points = action.points_or_refusal
        if isinstance(points, Refusal) or await self._is_known(action.user, action.action_id):
            return points
        if wait := self._window.admit(str(action.user), self._clock()):
            return too_many_actions(1000 * wait)
        if self._asked_at_once >= MAX_ASKED_AT_ONCE:
            return TOO_MANY_ASKED
        breaker = self._breakers.get(rule.url) or self._breakers.setdefault(rule.url, _breaker(action.action_type))
        if not breaker.allow(self._clock()):
            return NOT_ANSWERED
        self._asked_at_once += 1
        try:
            answered = await self._request(rule, action, points)
        except BaseException:
            breaker.abandoned(self._clock())
            raise
        finally:
            self._asked_at_once -= 1
        if answered is None:
            breaker.failed(self._clock())
            return NOT_ANSWERED
        breaker.succeeded(self._clock())
        return answered

    async def _request(self, rule: WebhookRule, action: SubmittedAction, points: int) -> int | Refusal | None:
        body, seconds = question(action, points), int(time())
        answer = await self._client.request(
            "POST",
            rule.url,
            headers={"content-type": "application/json", SIGNATURE_FIELD: sign(rule.secret, seconds, body)},
            content=body,
            timeout_seconds=TIMEOUT_SECONDS,
            max_answer_bytes=MAX_ANSWER_BYTES,
        )
        result: int | Refusal | None = None
        if isinstance(answer, RequestFailure):
            log.debug("webhook_failed", action_type=action.action_type, why=answer.why)
        else:
            result = read_answer(answer, points)
        outcome = "failed" if result is None else "refused" if isinstance(result, Refusal) else "accepted"
        metrics.WEBHOOK_ANSWERS.labels(outcome).inc()
        return result


def _breaker(action_type: str) -> Breaker:
    def changed(state: State) -> None:
        if state is State.OPEN:
            log.warning("webhook_unavailable", action_type=action_type)
        elif state is State.CLOSED:
            log.info("webhook_available", action_type=action_type)

    return Breaker(None, interval=PROBE_INTERVAL_SECONDS, on_state_change=changed)
