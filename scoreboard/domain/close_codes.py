"""Why the server closes a live connection, and whether its client should connect again. Pure.

The server closes with these codes. The clients use them to decide whether to reconnect (`client.backoff`, web/static).
"""

from enum import IntEnum


class CloseCode(IntEnum):
    """Why the server closes a connection. RECONNECT says whether a client should reconnect."""

    LEAVING = 1001
    PROTOCOL = 1002  # frames that RFC 6455 forbids
    NOT_UTF8 = 1007
    POLICY = 1008  # too many messages, frames or bytes
    TOO_BIG = 1009
    RESTART = 1012
    OVERLOADED = 1013
    BAD_MESSAGE = 4400
    TOKEN = 4401  # missing, expired, revoked, of another user
    ORIGIN = 4403
    SILENT = 4408
    SLOW = 4413


# True: reconnect, with jitter and the same token. False: don't; a new connection would end in the same way.
RECONNECT: dict[CloseCode, bool] = {
    CloseCode.LEAVING: True,
    CloseCode.PROTOCOL: False,
    CloseCode.NOT_UTF8: False,
    CloseCode.POLICY: False,
    CloseCode.TOO_BIG: False,
    CloseCode.RESTART: True,
    CloseCode.OVERLOADED: True,
    CloseCode.BAD_MESSAGE: False,
    CloseCode.TOKEN: False,
    CloseCode.ORIGIN: False,
    CloseCode.SILENT: True,
    CloseCode.SLOW: True,
}

CLOSE_REASONS: dict[CloseCode, str] = {
    CloseCode.LEAVING: "the server is leaving",
    CloseCode.PROTOCOL: "protocol error",
    CloseCode.NOT_UTF8: "text that is not UTF-8",
    CloseCode.POLICY: "too many messages",
    CloseCode.TOO_BIG: "message too big",
    CloseCode.RESTART: "the server restarts",
    CloseCode.OVERLOADED: "too many connections",
    CloseCode.BAD_MESSAGE: "bad message",
    CloseCode.TOKEN: "no valid token",
    CloseCode.ORIGIN: "origin not allowed",
    CloseCode.SILENT: "nothing heard",
    CloseCode.SLOW: "reads too slowly",
}


def close_reason(code: CloseCode) -> str:
    """The close frame's text: why, and what to do. At most 123 bytes, as a control frame allows."""
    return f"{CLOSE_REASONS[code]}; {'reconnect' if RECONNECT[code] else 'do not reconnect'}"
