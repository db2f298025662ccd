"""Audit events: who changed what about scores, users and keys, besides users' own actions. Values only.

An event is written in the transaction that makes its change (storage.postgres.audit_events), and is never changed.
Its details have ids and numbers; names and addresses of people stay in `users`, where they can be erased.

Tested in tests/storage/postgres/test_audit_events.py.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

OPERATOR = "operator"  # the actor of commands: whoever may run them on the machine
SYSTEM = "system"  # the actor of what nodes do by themselves, by a rule of the configuration


class AuditKind(StrEnum):
    """What was changed."""

    USER_ERASED = "user_erased"
    FLAG_DECIDED = "flag_decided"
    MASTER_KEY_ROTATED = "master_key_rotated"
    MASTER_KEY_REVOKED = "master_key_revoked"
    ROLE_CHANGED = "role_changed"
    USER_BANNED = "user_banned"
    BAN_LIFTED = "ban_lifted"
    ACTION_REVERSED = "action_reversed"
    REVERSAL_UNDONE = "reversal_undone"
    NOTE_ADDED = "note_added"
    LOG_PRUNED = "log_pruned"  # details: {"below": order number}; older rows of action_logs were removed by a rule
    HELD_APPROVED = "held_approved"
    HELD_REFUSED = "held_refused"
    SERVER_KEY_CREATED = "server_key_created"
    SERVER_KEY_ROTATED = "server_key_rotated"
    SERVER_KEY_REVOKED = "server_key_revoked"


class AuditEvent(NamedTuple):
    """One change. `actor` is a user's id, `server-key:<id>`, OPERATOR or SYSTEM."""

    kind: AuditKind
    actor: str
    subject: UUID | None = None  # the user it is about
    details: Mapping[str, Any] = {}  # what JSON can hold
