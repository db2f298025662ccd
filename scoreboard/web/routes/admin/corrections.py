"""`/admin/users/…/actions/…/reverse`: an action that does not count any more, and the undo of that.

Tested in tests/web/routes/admin/test_corrections.py.
"""

from collections.abc import Iterator
from uuid import UUID

import msgspec

from scoreboard.domain.admin_queries import read_text
from scoreboard.domain.boards import rfc3339
from scoreboard.domain.errors import Refusal
from scoreboard.domain.paths import ADMIN_REVERSE_PATH
from scoreboard.domain.roles import Role
from scoreboard.drivers.stores import Stores
from scoreboard.http.request import Request, Response
from scoreboard.operations.admin.reverse_action import reverse_action, undo_reversal
from scoreboard.storage.board_refresh import BoardRefresh
from scoreboard.storage.postgres.reversals import Correction
from scoreboard.web import json_body
from scoreboard.web.admin_schemas import MAX_REASON_LENGTH, Corrected, CorrectedAnswer, ReasonBody, WithdrawalBody
from scoreboard.web.responses import success
from scoreboard.web.route import Route
from scoreboard.web.routes.admin.parameters import action_of, user_of, withdrawal_reason
from scoreboard.web.staff import Member, Staff

_reason = msgspec.json.Decoder(ReasonBody)


class AdminCorrectionRoutes:
    """The routes that change what counts."""

    def __init__(self, staff: Staff, stores: Stores, boards: BoardRefresh) -> None:
        self._staff, self._stores, self._boards = staff, stores, boards

    def routes(self) -> Iterator[Route]:
        """Both."""
        yield self._staff.route(
            Role.MODERATOR,
            "POST",
            ADMIN_REVERSE_PATH,
            self.reverse,
            name="admin_reverse",
            request_type=ReasonBody,
            response_type=CorrectedAnswer,
            errors=(404, 409, 415),
        )
        yield self._staff.route(
            Role.MODERATOR,
            "DELETE",
            ADMIN_REVERSE_PATH,
            self.undo,
            name="admin_undo_reversal",
            request_type=WithdrawalBody,
            response_type=CorrectedAnswer,
            errors=(404, 409, 415),
        )

    async def reverse(self, request: Request, member: Member) -> Response | Refusal:
        """Reverse an action: its points are taken off every board. The action stays in the log."""
        user, action, body = user_of(request), action_of(request), json_body.read(request, _reason)
        if isinstance(user, Refusal):
            return user
        if isinstance(action, Refusal):
            return action
        if isinstance(body, Refusal):
            return body
        reason = read_text("reason", body.reason, MAX_REASON_LENGTH)
        if isinstance(reason, Refusal):
            return reason
        outcome = await reverse_action(
            self._stores, self._boards, user, action, reason, member.user, request_id=request.request_id.decode()
        )
        return _response(user, action, outcome)

    async def undo(self, request: Request, member: Member) -> Response | Refusal:
        """Undo a reversal: the action counts again, at the place in the order that it had."""
        user, action, reason = user_of(request), action_of(request), withdrawal_reason(request)
        if isinstance(user, Refusal):
            return user
        if isinstance(action, Refusal):
            return action
        if isinstance(reason, Refusal):
            return reason
        outcome = await undo_reversal(
            self._stores, self._boards, user, action, member.user, reason, request_id=request.request_id.decode()
        )
        return _response(user, action, outcome)


def _response(user: UUID, action: str, outcome: Correction | Refusal) -> Response | Refusal:
    if isinstance(outcome, Refusal):
        return outcome
    return success(Corrected(str(user), action, outcome.previous, outcome.points, outcome.new, rfc3339(outcome.at_ms)))
