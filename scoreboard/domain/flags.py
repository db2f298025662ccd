"""Flags: what an anomaly rule found about a user, until a moderator has decided about it. Values only.

Tested in tests/storage/test_flagging.py.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from scoreboard.domain.anomalies import AnomalyRule

MAX_FLAG_REASON_CHARACTERS = 500


class FlagState(StrEnum):
    """`approved`: the actions stand. `revoked`: they do not."""

    OPEN = "open"
    APPROVED = "approved"
    REVOKED = "revoked"


class Verdict(StrEnum):
    """What a moderator says, in the words of the API."""

    APPROVE = "approve"
    REVOKE = "revoke"

    @property
    def state(self) -> FlagState:
        return FlagState.APPROVED if self is Verdict.APPROVE else FlagState.REVOKED


class FlagDraft(NamedTuple):
    """A finding about a user, before it is stored. `scope`: of a finding about many users, what it is about; one flag
    is made of it, whoever it names."""

    rule: AnomalyRule
    user: UUID
    evidence: Mapping[str, Any]  # numbers and ids, never text of a client
    seq: int | None = None  # the order number of the action at which it was found
    scope: bytes | None = None


class Flag(NamedTuple):
    """A stored flag. Times are Unix milliseconds."""

    id: int
    rule: AnomalyRule
    user: UUID
    evidence: Mapping[str, Any]
    seq: int | None
    hits: int  # how often the rule has hit while the flag was open
    created_ms: int
    last_hit_ms: int
    state: FlagState = FlagState.OPEN
    decided_by: str | None = None
    reason: str | None = None
    decided_ms: int | None = None
