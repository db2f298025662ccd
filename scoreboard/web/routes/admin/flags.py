"""`/admin/flags`: what the rules for anomalies found, and what moderators decided about it.

Tested in tests/web/routes/admin/test_flags.py.
"""

from collections.abc import Iterator

import msgspec

from scoreboard.domain.admin_queries import Values, read_limit, read_numbers, read_text, read_user_id
from scoreboard.domain.boards import rfc3339
from scoreboard.domain.errors import Code, Refusal, invalid_request
from scoreboard.domain.flags import MAX_FLAG_REASON_CHARACTERS, Flag, FlagState, Verdict
from scoreboard.domain.paths import ADMIN_FLAG_PATH, ADMIN_FLAGS_PATH
from scoreboard.domain.roles import Role
from scoreboard.drivers.stores import Stores
from scoreboard.http.request import Request, Response
from scoreboard.operations.flags import decide
from scoreboard.storage.postgres import flags as flag_store
from scoreboard.storage.postgres.decisions import refuse_subject
from scoreboard.web import json_body
from scoreboard.web.admin_schemas import AdminFlag, AdminFlagAnswer, AdminFlags, AdminFlagsAnswer, FlagBody, FlagsQuery
from scoreboard.web.responses import success
from scoreboard.web.route import Route
from scoreboard.web.routes.admin.parameters import number_of, read_query
from scoreboard.web.staff import Member, Staff

_body = msgspec.json.Decoder(FlagBody)

NO_SUCH_FLAG = Refusal(Code.NOT_FOUND, "There is no such flag.")


class AdminFlagRoutes:
    """The routes of flags."""

    def __init__(self, staff: Staff, stores: Stores) -> None:
        self._staff, self._stores = staff, stores

    def routes(self) -> Iterator[Route]:
        """Both."""
        yield self._staff.route(
            Role.VIEWER,
            "GET",
            ADMIN_FLAGS_PATH,
            self.read,
            name="admin_flags",
            query_type=FlagsQuery,
            response_type=AdminFlagsAnswer,
        )
        yield self._staff.route(
            Role.MODERATOR,
            "POST",
            ADMIN_FLAG_PATH,
            self.decide,
            name="admin_decide_flag",
            request_type=FlagBody,
            response_type=AdminFlagAnswer,
            errors=(404, 409, 415),
        )

    async def read(self, request: Request, _member: Member) -> Response | Refusal:
        """Read what the rules for anomalies found, the newest first."""
        values = read_query(request, FlagsQuery)
        if isinstance(values, Refusal):
            return values
        limit, cursor, state, text = read_limit(values), read_numbers(values, 1), _read_state(values), _user(values)
        if isinstance(limit, Refusal):
            return limit
        if isinstance(cursor, Refusal):
            return cursor
        if isinstance(state, Refusal):
            return state
        user = read_user_id(text) if text else None
        if isinstance(user, Refusal):
            return invalid_request("user", "is not a user's id")
        before = cursor[0] if cursor else None
        found = await flag_store.list_flags(self._stores, state=state, user=user, before=before, limit=limit)
        return success(AdminFlags([_flag(flag) for flag in found], str(found[-1].id) if len(found) == limit else None))

    async def decide(self, request: Request, member: Member) -> Response | Refusal:
        """Decide a flag: the actions stand (approve), or they do not (revoke).

        A hold ends, and an approval lifts the rule's ban."""
        number, body = number_of(request), json_body.read(request, _body)
        if isinstance(number, Refusal):
            return NO_SUCH_FLAG
        if isinstance(body, Refusal):
            return body
        reason = read_text("reason", body.reason, MAX_FLAG_REASON_CHARACTERS)
        if isinstance(reason, Refusal):
            return reason
        flag = await flag_store.read_flag(self._stores, number)
        if flag is None:
            return NO_SUCH_FLAG
        if refused := await refuse_subject(self._stores, flag.user, member.user):
            return refused
        decision = await decide(self._stores, number, Verdict(body.verdict), str(member.user), reason)
        if decision is None:
            return NO_SUCH_FLAG
        if not decision.is_made:
            at = rfc3339(decision.flag.decided_ms or 0)
            what = f"This flag was decided already: {decision.flag.state}, by {decision.flag.decided_by} at {at}."
            return Refusal(Code.CONFLICT, what)
        return success(_flag(decision.flag))


def _read_state(values: Values) -> FlagState | Refusal | None:
    text = values.get("state", ("",))[-1]
    if not text:
        return None
    return FlagState(text) if text in set(FlagState) else invalid_request("state", "is not a state of flags")


def _user(values: Values) -> str:
    return values.get("user", ("",))[-1]


def _flag(flag: Flag) -> AdminFlag:
    return AdminFlag(
        flagId=str(flag.id),
        rule=flag.rule,
        userId=str(flag.user),
        evidence=dict(flag.evidence),
        hits=flag.hits,
        createdAt=rfc3339(flag.created_ms),
        lastHitAt=rfc3339(flag.last_hit_ms),
        state=flag.state.value,
        decidedBy=flag.decided_by,
        decidedAt=None if flag.decided_ms is None else rfc3339(flag.decided_ms),
        reason=flag.reason,
    )
