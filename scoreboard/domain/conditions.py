"""What must hold in the database when an action is recorded, besides the limits that every action has. Values only.

`operations.submit_action` takes them from the rule of the action's type; most types have none.
`storage.postgres.conditions` compares them in the transaction that records the action.

Tested in tests/storage/postgres/test_conditions.py.
"""

from enum import StrEnum

import msgspec


class Verdict(StrEnum):
    """A decision on an action that waits for one."""

    APPROVE = "approve"
    REFUSE = "refuse"


class HeldStatus(StrEnum):
    """The state of an action that waited, or waits, for a decision."""

    HELD = "held"
    APPROVED = "approved"
    REFUSED = "refused"


class StartCondition(msgspec.Struct, frozen=True):
    """The start that the action names, and how old it must be at least, in seconds. `id`: as it was sent."""

    id: str
    minimum: float


class Hold(msgspec.Struct, frozen=True):
    """The action waits for a decision. After `days` without one `undecided` happens. After a decision it is kept for
    `retention_days`. The evidence's hash is in hexadecimal digits, its size in bytes; None and 0: there is none."""

    days: int
    undecided: Verdict
    retention_days: int
    evidence_sha256: str | None = None
    evidence_size: int = 0


class Approval(msgspec.Struct, frozen=True):
    """The action waited and is approved: by whom, as in domain.audit, and why."""

    actor: str
    reason: str


class Conditions(msgspec.Struct, frozen=True):
    """All of one action. `daily_points` and `daily_count`: the most of its user, type and day (UTC); 0: no cap."""

    daily_points: int = 0
    daily_count: int = 0
    start: StartCondition | None = None
    hold: Hold | None = None
    approval: Approval | None = None
