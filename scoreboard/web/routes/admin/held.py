"""`/admin/held`: actions that wait for a decision, their evidence, and the decision.

Tested in tests/web/routes/admin/test_held.py.
"""

from collections.abc import Iterator

import msgspec

from scoreboard.domain.admin_queries import read_limit, read_numbers
from scoreboard.domain.boards import rfc3339
from scoreboard.domain.conditions import Verdict
from scoreboard.domain.errors import Code, Refusal
from scoreboard.domain.paths import ADMIN_EVIDENCE_PATH, ADMIN_HELD_ACTION_PATH, ADMIN_HELD_PATH
from scoreboard.domain.roles import Role
from scoreboard.drivers.stores import Stores
from scoreboard.http.request import Request, Response
from scoreboard.operations.held_actions import HeldActions
from scoreboard.storage.postgres import evidence, held_actions
from scoreboard.storage.postgres.decisions import refuse_subject
from scoreboard.storage.postgres.held_actions import HeldRow
from scoreboard.web import json_body
from scoreboard.web.admin_schemas import (
    AdminHeld,
    AdminHeldActions,
    AdminHeldActionsAnswer,
    AdminHeldAnswer,
    Evidence,
    HeldBody,
    HistoryQuery,
)
from scoreboard.web.responses import success
from scoreboard.web.route import Route
from scoreboard.web.routes.admin.parameters import number_of, read_query
from scoreboard.web.staff import Member, Staff

_body = msgspec.json.Decoder(HeldBody)

NO_SUCH_ACTION = Refusal(Code.NOT_FOUND, "There is no such action.")
NO_EVIDENCE = Refusal(Code.NOT_FOUND, "There is no evidence of this action.")

# A stranger's bytes: saved, never shown by a browser, and no script of this origin.
_FIELDS = (
    b"content-type: application/octet-stream\r\ncontent-disposition: attachment; filename=evidence\r\n"
    b"x-content-type-options: nosniff\r\ncontent-security-policy: sandbox\r\ncache-control: no-store\r\n"
)


class AdminHeldRoutes:
    """The routes of actions that wait."""

    def __init__(self, staff: Staff, stores: Stores, held: HeldActions) -> None:
        self._staff, self._stores, self._held = staff, stores, held

    def routes(self) -> Iterator[Route]:
        """All three."""
        yield self._staff.route(
            Role.VIEWER,
            "GET",
            ADMIN_HELD_PATH,
            self.read,
            name="admin_held",
            query_type=HistoryQuery,
            response_type=AdminHeldActionsAnswer,
        )
        yield self._staff.route(
            Role.VIEWER,
            "GET",
            ADMIN_EVIDENCE_PATH,
            self.evidence,
            name="admin_evidence",
            response_type=Evidence,
            errors=(404,),
        )
        yield self._staff.route(
            Role.MODERATOR,
            "POST",
            ADMIN_HELD_ACTION_PATH,
            self.decide,
            name="admin_decide_held",
            request_type=HeldBody,
            response_type=AdminHeldAnswer,
            errors=(404, 409, 415),
        )

    async def read(self, request: Request, _member: Member) -> Response | Refusal:
        """Read the actions that wait for a decision, the oldest first."""
        values = read_query(request, HistoryQuery)
        if isinstance(values, Refusal):
            return values
        limit, cursor = read_limit(values), read_numbers(values, 1)
        if isinstance(limit, Refusal):
            return limit
        if isinstance(cursor, Refusal):
            return cursor
        rows = await held_actions.waiting(self._stores, cursor[0] if cursor else 0, limit)
        return success(AdminHeldActions([_held(row) for row in rows], str(rows[-1].id) if len(rows) == limit else None))

    async def evidence(self, request: Request, _member: Member) -> Response | Refusal:
        """Read the evidence of an action, as the user uploaded it."""
        row = await self._find(request)
        if isinstance(row, Refusal):
            return row
        if row.evidence_sha256 is None or not row.is_uploaded:
            return NO_EVIDENCE
        content = await evidence.read(self._stores, row.user, bytes.fromhex(row.evidence_sha256))
        return NO_EVIDENCE if content is None else Response(200, content, _FIELDS)

    async def decide(self, request: Request, member: Member) -> Response | Refusal:
        """Decide about an action that waits: it counts (approve), or it does not (refuse)."""
        body = json_body.read(request, _body)
        if isinstance(body, Refusal):
            return body
        row = await self._find(request)
        if isinstance(row, Refusal):
            return row
        if refused := await refuse_subject(self._stores, row.user, member.user):
            return refused
        outcome = await self._held.decide(
            str(member.user),
            row.user,
            row.action_id,
            Verdict(body.verdict),
            body.reason,
            request_id=request.request_id.decode(),
        )
        if not isinstance(outcome, Refusal):
            return success(_held(outcome))
        if outcome.code is Code.CONFLICT and (now := await self._decided(row.id)):
            return now
        return outcome

    async def _find(self, request: Request) -> HeldRow | Refusal:
        number = number_of(request)
        if isinstance(number, Refusal):
            return NO_SUCH_ACTION
        return await held_actions.find_by_id(self._stores, number) or NO_SUCH_ACTION

    async def _decided(self, held: int) -> Refusal | None:
        """409 with what was decided; None when nothing was."""
        row = await held_actions.find_by_id(self._stores, held)
        if row is None or row.decided_ms is None:
            return None
        what = f"This action was decided already: {row.status}, by {row.decided_by} at {rfc3339(row.decided_ms)}."
        return Refusal(Code.CONFLICT, what)


def _held(row: HeldRow) -> AdminHeld:
    return AdminHeld(
        heldId=str(row.id),
        userId=str(row.user),
        actionId=row.action_id,
        actionType=row.action_type,
        points=row.points,
        status=row.status.value,
        metadata=None if row.metadata is None else msgspec.json.decode(row.metadata),
        evidenceSize=row.evidence_size,
        isUploaded=row.is_uploaded,
        heldAt=rfc3339(row.held_ms),
        expiresAt=rfc3339(row.expires_ms),
        undecided=row.undecided.value,
        decidedBy=row.decided_by,
        decidedAt=None if row.decided_ms is None else rfc3339(row.decided_ms),
        reason=row.reason,
    )
