"""Sends messages of the outbox to the receivers that the settings name: webhooks of programs, Discord or Slack.

Called by workers.message_sender. A message goes out at least once: when a node ends between the receiver's answer and
the note of it, another node sends it again, under the same id (`Idempotency-Key`). The form of a message is a template
of the folder message_templates, in which texts that begin with "$" are replaced. Receivers are reached through
drivers.https_client, so only at public addresses unless the operator names their hosts.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import msgspec
import structlog
import trio

from scoreboard.domain.boards import rfc3339
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.domain.outgoing_messages import MAX_TRIES, Channel, wait_seconds
from scoreboard.drivers.https_client import Answer, HttpsClient, RequestFailure
from scoreboard.drivers.stores import Stores
from scoreboard.security.webhook_signatures import SIGNATURE_HEADER, webhook_signature
from scoreboard.storage.postgres import outgoing_messages
from scoreboard.storage.postgres.outgoing_messages import CLAIM_SECONDS, ClaimedMessage
from scoreboard.telemetry import metrics

SEND_SECONDS = 5.0  # of one request; a receiver should take a message first and work later
MAX_ANSWER_BYTES = 16 * 1024  # the answer is not read; a larger one counts as a failure
MAX_MESSAGES_AT_ONCE = 8  # of a node; all of them end long before their claims
MAX_DISCORD_CHARACTERS = 2000  # Discord refuses more

log = structlog.get_logger()

assert SEND_SECONDS < CLAIM_SECONDS / 2


class Form(StrEnum):
    """What the receiver understands."""

    JSON = "json"
    DISCORD = "discord"
    SLACK = "slack"


class Receiver(NamedTuple):
    """Where messages of a channel go. The URL of a chat is a secret: whoever has it can post there."""

    url: str
    form: Form = Form.JSON
    secret: str = ""  # signs the JSON form; "": no signature

    def __repr__(self) -> str:
        return f"Receiver({self.form})"  # never the URL or the secret


# ---- pure: what is sent ---------------------------------------------------------------------------------------------


def render(message: ClaimedMessage, form: Form) -> bytes:
    """The body of a message in a form."""
    values = {
        "$id": str(message.id),
        "$channel": message.channel,
        "$kind": message.kind,
        "$createdAt": rfc3339(message.created_ms),
        "$summary": _escaped(message.summary, form),
        "$data": message.data,
    }
    return msgspec.json.encode(_filled(_template(form), values))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The receiver's Retry-After in seconds, if it is a number."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if seconds >= 0 else None  # "nan" is no number of seconds either


def _escaped(text: str, form: Form) -> str:
    """The text, without a meaning of the chat's own: no mention, no link with another name, no formatting."""
    match form:
        case Form.SLACK:
            return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        case Form.DISCORD:
            return re.sub(r"([\\*_~`|>\[\]()#<@])", r"\\\1", text)[:MAX_DISCORD_CHARACTERS]
        case Form.JSON:
            return text


def _filled(template: Any, values: Mapping[str, Any]) -> Any:
    match template:
        case dict():
            return {name: _filled(value, values) for name, value in template.items()}
        case str():
            return values.get(template, template)
    return template


@cache
def _template(form: Form) -> Any:
    return msgspec.json.decode(
        files("scoreboard.operations").joinpath("message_templates", f"{form}.json").read_bytes()
    )


# ---- sends ----------------------------------------------------------------------------------------------------------


class MessageSender:
    """Sends the messages of the channels that have a receiver on this node."""

    __slots__ = ("_client", "_clock", "_receivers", "_stores")

    def __init__(
        self,
        stores: Stores,
        client: HttpsClient,
        receivers: Mapping[Channel, Receiver],
        clock: Callable[[], float] = lambda: datetime.now(UTC).timestamp(),
    ) -> None:
        """`clock` returns Unix seconds, for signatures."""
        self._stores, self._client, self._receivers, self._clock = stores, client, receivers, clock

    async def send_due(self) -> int:
        """Sends the messages that are due, at most MAX_MESSAGES_AT_ONCE. Returns how many were claimed, when all have
        been answered or have failed.

        Raises StorageUnavailable. After a cancellation, claimed messages are sent again by any node when their claim
        ends.
        """
        claimed = await outgoing_messages.claim(self._stores, self._receivers.keys(), MAX_MESSAGES_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for message in claimed:
                nursery.start_soon(self._send_one, message)
        return len(claimed)

    async def _send_one(self, message: ClaimedMessage) -> None:
        failure, wait = await self._post(message)
        try:
            if failure is None:
                await outgoing_messages.mark_sent(self._stores, message)
            else:
                await outgoing_messages.mark_failed(self._stores, message, failure, wait_seconds(message.tries, wait))
        except StorageUnavailable as exc:  # the claim ends, and the message is sent again
            log.warning("message_outcome_lost", message=str(message.id), why=exc.why)
            return
        is_dead = failure is not None and message.tries >= MAX_TRIES
        metrics.OUTGOING_MESSAGES.labels(
            message.channel, "sent" if failure is None else "dead" if is_dead else "failed"
        ).inc()
        if is_dead:
            log.error("message_dead", message=str(message.id), channel=message.channel, why=failure)

    async def _post(self, message: ClaimedMessage) -> tuple[str | None, float | None]:
        """Posts the message. Returns why that failed (None: it did not), and the receiver's Retry-After."""
        receiver = self._receivers[Channel(message.channel)]
        body = render(message, receiver.form)
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(message.id)}
        if receiver.secret and receiver.form is Form.JSON:
            headers[SIGNATURE_HEADER] = webhook_signature(receiver.secret, int(self._clock()), body)
        answer: Answer | RequestFailure = await self._client.request(
            "POST",
            receiver.url,
            headers=headers,
            content=body,
            timeout_seconds=SEND_SECONDS,
            max_answer_bytes=MAX_ANSWER_BYTES,
        )
        if isinstance(answer, RequestFailure):
            return answer.why, None
        if 200 <= answer.status < 300:
            return None, None
        return f"the receiver answered {answer.status}", retry_after(answer.headers)
