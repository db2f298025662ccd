"""Messages from clients on a live connection: the four actions, decoded within bounds. Pure.

`live.transports.conversation` reads every text message with `read_message`.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from scoreboard.domain.actions import DECODE_ERRORS

MAX_MESSAGE_BYTES = 4096  # contract: a text message has at most 4 KiB
# characters; an unknown channel is answered with an error event, a longer one is a bad message that ends the connection
MAX_CHANNEL_LENGTH = 255
MAX_MODE_LENGTH = 32  # characters; the same for a mode
MAX_POSITION_LENGTH = MAX_MESSAGE_BYTES  # characters; an unknown position is only compared, and a whole board is sent


class Subscribe(msgspec.Struct, tag_field="action", tag="subscribe", frozen=True):
    channel: Annotated[str, Meta(max_length=MAX_CHANNEL_LENGTH)]
    mode: Annotated[str, Meta(max_length=MAX_MODE_LENGTH)] = "full"
    since: Annotated[str, Meta(max_length=MAX_POSITION_LENGTH)] | None = None
    heartbeat: bool = False  # whether the client wants heartbeats when no other event is sent


class Unsubscribe(msgspec.Struct, tag_field="action", tag="unsubscribe", frozen=True):
    channel: Annotated[str, Meta(max_length=MAX_CHANNEL_LENGTH)]


class Ping(msgspec.Struct, tag_field="action", tag="ping", frozen=True):
    pass


class Auth(msgspec.Struct, tag_field="action", tag="auth", frozen=True):
    token: Annotated[str, Meta(max_length=MAX_MESSAGE_BYTES)]

    def __repr__(self) -> str:
        return "Auth()"  # never the token


Message = Subscribe | Unsubscribe | Ping | Auth

_decode_message = msgspec.json.Decoder(Message).decode


def read_message(text: str) -> Message | None:
    """A client's message; None when it is not JSON, not an object, or none of the actions. Unknown members are
    ignored."""
    try:
        message: Message = _decode_message(text)
    except DECODE_ERRORS:
        return None
    return message
