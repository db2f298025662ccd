"""`/admin/log`: the audit events, newest first.

Tested in tests/web/routes/admin/test_log.py.
"""

from collections.abc import Iterator
from uuid import UUID

from scoreboard.domain.admin_queries import Values, read_limit, read_numbers, read_user_id
from scoreboard.domain.audit import AuditKind
from scoreboard.domain.boards import rfc3339
from scoreboard.domain.errors import Refusal, invalid_request
from scoreboard.domain.paths import ADMIN_LOG_PATH
from scoreboard.domain.roles import Role
from scoreboard.drivers.stores import Stores
from scoreboard.http.request import Request, Response
from scoreboard.storage.postgres import audit_events
from scoreboard.storage.postgres.audit_events import StoredEvent
from scoreboard.web.admin_schemas import Log, LogAnswer, LogEntry, LogQuery
from scoreboard.web.responses import success
from scoreboard.web.route import Route
from scoreboard.web.routes.admin.parameters import read_query
from scoreboard.web.staff import Member, Staff


class AdminLogRoutes:
    """The route of the log."""

    def __init__(self, staff: Staff, stores: Stores) -> None:
        self._staff, self._stores = staff, stores

    def routes(self) -> Iterator[Route]:
        """One."""
        yield self._staff.route(
            Role.VIEWER,
            "GET",
            ADMIN_LOG_PATH,
            self.read,
            name="admin_log",
            query_type=LogQuery,
            response_type=LogAnswer,
        )

    async def read(self, request: Request, _member: Member) -> Response | Refusal:
        """Read the audit log: who did what about whom."""
        values = read_query(request, LogQuery)
        if isinstance(values, Refusal):
            return values
        limit, cursor = read_limit(values), read_numbers(values, 1)
        kind, subject = _read_kind(values), _read_subject(values)
        if isinstance(limit, Refusal):
            return limit
        if isinstance(cursor, Refusal):
            return cursor
        if isinstance(kind, Refusal):
            return kind
        if isinstance(subject, Refusal):
            return subject
        before = cursor[0] if cursor else None
        events = await audit_events.page(self._stores, limit, before, kind=kind, subject=subject)
        return success(Log([_entry(event) for event in events], str(events[-1].id) if len(events) == limit else None))


def _read_kind(values: Values) -> AuditKind | Refusal | None:
    text = values.get("kind", ("",))[-1]
    if not text:
        return None
    return AuditKind(text) if text in set(AuditKind) else invalid_request("kind", "is not a kind of event")


def _read_subject(values: Values) -> UUID | Refusal | None:
    text = values.get("subject", ("",))[-1]
    if not text:
        return None
    user = read_user_id(text)
    return invalid_request("subject", "is not a user's id") if isinstance(user, Refusal) else user


def _entry(event: StoredEvent) -> LogEntry:
    return LogEntry(
        str(event.id),
        event.kind,
        event.actor,
        event.actor_name,
        None if event.subject is None else str(event.subject),
        dict(event.details),
        rfc3339(event.created_ms),
    )
