"""`/admin/users`: find users, read one with the history, ban, note, and give roles.

No answer has an e-mail address: it never leaves `/users/me`. Tested in tests/web/routes/admin/test_users.py.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from scoreboard.domain.admin_queries import (
    BAD_CURSOR,
    Values,
    read_limit,
    read_numbers,
    read_search,
    read_text,
    read_text_cursor,
)
from scoreboard.domain.bans import Ban
from scoreboard.domain.boards import rfc3339
from scoreboard.domain.errors import Refusal, invalid_request
from scoreboard.domain.paths import (
    ADMIN_BAN_PATH,
    ADMIN_NOTES_PATH,
    ADMIN_ROLE_PATH,
    ADMIN_USER_PATH,
    ADMIN_USERS_PATH,
)
from scoreboard.domain.roles import Role, read_role
from scoreboard.drivers.stores import Stores
from scoreboard.http.request import Request, Response
from scoreboard.operations.admin.ban_user import ban_user, lift_ban
from scoreboard.storage.board_refresh import BoardRefresh
from scoreboard.storage.postgres import moderated_users, notes
from scoreboard.storage.postgres import staff as staff_store
from scoreboard.storage.postgres.decisions import NO_SUCH_USER
from scoreboard.storage.postgres.moderated_users import MAX_MICROSECONDS, NEWEST, FoundUser, HistoryPlace
from scoreboard.web import json_body
from scoreboard.web.admin_schemas import (
    MAX_NOTE_LENGTH,
    MAX_REASON_LENGTH,
    AdminUser,
    AdminUserAnswer,
    AdminUserDetails,
    AdminUsers,
    AdminUsersAnswer,
    BanBody,
    BanName,
    Banned,
    BannedAnswer,
    HistoryEntry,
    HistoryQuery,
    NoteBody,
    Noted,
    NotedAnswer,
    RoleBody,
    UserRole,
    UserRoleAnswer,
    UsersQuery,
    WithdrawalBody,
)
from scoreboard.web.responses import no_content, success
from scoreboard.web.route import Route
from scoreboard.web.routes.admin.parameters import read_query, user_of, withdrawal_reason
from scoreboard.web.schemas import NoContent
from scoreboard.web.staff import Member, Staff

_ban = msgspec.json.Decoder(BanBody)
_note = msgspec.json.Decoder(NoteBody)
_role = msgspec.json.Decoder(RoleBody)

_TIMES = ("liftedAt", "undoneAt", "decidedAt")  # in the details of an entry of the history, in Unix milliseconds
_BAN_NAMES: dict[Ban, BanName | None] = {Ban.NONE: None, Ban.SHADOW: "shadow", Ban.FULL: "ban"}


class AdminUserRoutes:
    """The routes about users."""

    def __init__(self, staff: Staff, stores: Stores, boards: BoardRefresh) -> None:
        self._staff, self._stores, self._boards = staff, stores, boards

    def routes(self) -> Iterator[Route]:
        """All six."""
        route = self._staff.route
        yield route(
            Role.VIEWER,
            "GET",
            ADMIN_USERS_PATH,
            self.search,
            name="admin_users",
            query_type=UsersQuery,
            response_type=AdminUsersAnswer,
        )
        yield route(
            Role.VIEWER,
            "GET",
            ADMIN_USER_PATH,
            self.read,
            name="admin_user",
            query_type=HistoryQuery,
            response_type=AdminUserAnswer,
            errors=(404,),
        )
        yield route(
            Role.MODERATOR,
            "POST",
            ADMIN_BAN_PATH,
            self.ban,
            name="admin_ban",
            request_type=BanBody,
            response_type=BannedAnswer,
            errors=(404, 409, 415),
        )
        yield route(
            Role.MODERATOR,
            "DELETE",
            ADMIN_BAN_PATH,
            self.lift,
            name="admin_lift_ban",
            request_type=WithdrawalBody,
            response_type=NoContent,
            status=204,
            errors=(404, 409, 415),
        )
        yield route(
            Role.MODERATOR,
            "POST",
            ADMIN_NOTES_PATH,
            self.note,
            name="admin_note",
            request_type=NoteBody,
            response_type=NotedAnswer,
            status=201,
            errors=(404, 409, 415),
        )
        yield route(
            Role.ADMIN,
            "PUT",
            ADMIN_ROLE_PATH,
            self.set_role,
            name="admin_role",
            request_type=RoleBody,
            response_type=UserRoleAnswer,
            errors=(404, 409, 415),
        )

    async def search(self, request: Request, _member: Member) -> Response | Refusal:
        """Find users by the beginning of the name, or the whole e-mail address, id or external id."""
        values = read_query(request, UsersQuery)
        if isinstance(values, Refusal):
            return values
        text, limit, after = read_search(values), read_limit(values), read_text_cursor(values)
        if isinstance(text, Refusal):
            return text
        if isinstance(limit, Refusal):
            return limit
        if isinstance(after, Refusal):
            return after
        found, following = await moderated_users.search(self._stores, text, limit, after)
        return success(AdminUsers([_user(each) for each in found], following))

    async def read(self, request: Request, _member: Member) -> Response | Refusal:
        """Read one user: role, ban, sessions, and the history of actions, bans, reversals, flags, notes."""
        user, values = user_of(request), read_query(request, HistoryQuery)
        if isinstance(user, Refusal):
            return user
        if isinstance(values, Refusal):
            return values
        limit, before = read_limit(values), _history_place(values)
        if isinstance(limit, Refusal):
            return limit
        if isinstance(before, Refusal):
            return before
        found = await moderated_users.read_user(self._stores, user)
        if found is None:
            return NO_SUCH_USER
        history = await moderated_users.history(self._stores, user, limit, before)
        last = history[-1].place if len(history) == limit else None
        return success(
            AdminUserDetails(
                **msgspec.structs.asdict(_user(found[0])),
                sessions=found[1],
                history=[
                    HistoryEntry(entry.kind, str(entry.place.id), rfc3339(entry.at_ms), _details(entry.details))
                    for entry in history
                ],
                next=None if last is None else f"{last.microseconds}-{last.id}",
            )
        )

    async def ban(self, request: Request, member: Member) -> Response | Refusal:
        """Ban a user: off every board, and no more actions. Or a shadow ban, after which only the user sees himself."""
        user, body = user_of(request), json_body.read(request, _ban)
        if isinstance(user, Refusal):
            return user
        if isinstance(body, Refusal):
            return body
        reason = read_text("reason", body.reason, MAX_REASON_LENGTH)
        if isinstance(reason, Refusal):
            return reason
        if body.shadow and body.showReason:
            return invalid_request("showReason", "would tell the user of a shadow ban")
        kind = Ban.SHADOW if body.shadow else Ban.FULL
        outcome = await ban_user(
            self._stores, self._boards, user, kind, reason, member.user, is_reason_shown=body.showReason
        )
        if isinstance(outcome, Refusal):
            return outcome
        return success(Banned(str(user), "shadow" if body.shadow else "ban", str(outcome)))

    async def lift(self, request: Request, member: Member) -> Response | Refusal:
        """Lift a user's ban: back on every board, with all points."""
        user, reason = user_of(request), withdrawal_reason(request)
        if isinstance(user, Refusal):
            return user
        if isinstance(reason, Refusal):
            return reason
        outcome = await lift_ban(self._stores, self._boards, user, member.user, reason)
        return outcome if isinstance(outcome, Refusal) else no_content()

    async def note(self, request: Request, member: Member) -> Response | Refusal:
        """Add a note about a user, for others with a role."""
        user, body = user_of(request), json_body.read(request, _note)
        if isinstance(user, Refusal):
            return user
        if isinstance(body, Refusal):
            return body
        note = read_text("note", body.note, MAX_NOTE_LENGTH)
        if isinstance(note, Refusal):
            return note
        outcome = await notes.add(self._stores, user, note, member.user)
        return outcome if isinstance(outcome, Refusal) else success(Noted(str(outcome)), status=201)

    async def set_role(self, request: Request, member: Member) -> Response | Refusal:
        """Give a user a role, or take it. It holds from the user's next request on."""
        user, body = user_of(request), json_body.read(request, _role)
        if isinstance(user, Refusal):
            return user
        if isinstance(body, Refusal):
            return body
        changed = await staff_store.set_role(self._stores, user, read_role(body.role), member.user)
        if changed is None or isinstance(changed, Refusal):
            return changed or NO_SUCH_USER
        return success(UserRole(str(user), changed.after))


def _user(found: FoundUser) -> AdminUser:
    return AdminUser(
        str(found.user),
        found.username,
        found.avatar_url,
        found.role,
        _BAN_NAMES[found.ban],
        found.score,
        rfc3339(found.created_ms),
    )


def _history_place(values: Values) -> HistoryPlace | Refusal:
    numbers = read_numbers(values, 2)
    if numbers is None or isinstance(numbers, Refusal):
        return numbers or NEWEST
    return HistoryPlace(*numbers) if numbers[0] <= MAX_MICROSECONDS else BAD_CURSOR


def _details(details: Mapping[str, Any]) -> dict[str, Any]:
    """The details of an entry, with times as everywhere in the API."""
    return {name: rfc3339(value) if name in _TIMES and value is not None else value for name, value in details.items()}
