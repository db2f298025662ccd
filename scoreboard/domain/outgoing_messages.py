"""Messages to servers that the operator names: what they contain, and when they are tried again. Pure.

A message is put into the outbox (storage.postgres.outgoing_messages) in the transaction of what it tells of, and is
sent later by any node (operations.send_messages): at least once, so each has an id that its receiver can know again.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

MAX_TRIES = 12  # the last one about four hours after the first; then the message is dead
FIRST_WAIT_SECONDS = 10.0  # after the first failure; doubled after each further one
MAX_WAIT_SECONDS = 3600.0
# Pending messages of a channel. More are dropped and counted: the receiver has been away for long, or somebody floods.
MAX_PENDING = 1_000
MAX_SUMMARY_CHARACTERS = 1_000


class Channel(StrEnum):
    """What messages are about. Each has its own receiver in the settings."""

    ALERTS = "alerts"


class OutgoingMessage(NamedTuple):
    """A new message. `key` says what it tells of: a second message with the same one is not added."""

    channel: Channel
    kind: str
    key: str
    summary: str  # one line for people
    data: Mapping[str, Any]  # for programs; what JSON can hold


def wait_seconds(tries: int, retry_after: float | None = None) -> float:
    """Seconds until the next try after the `tries`-th failed. The receiver's Retry-After may make it longer."""
    wait = FIRST_WAIT_SECONDS * 2.0 ** min(tries - 1, MAX_TRIES)
    return min(MAX_WAIT_SECONDS, max(wait, retry_after or 0.0))
