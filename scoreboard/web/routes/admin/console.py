"""`/admin/me` and `/admin/server-keys`: what the console asks besides the subjects of the other files.

Tested in tests/web/routes/admin/test_console.py.
"""

from collections.abc import Iterator
from datetime import datetime

from scoreboard.domain.admin_queries import BAD_CURSOR, read_limit, read_text_cursor
from scoreboard.domain.boards import rfc3339
from scoreboard.domain.errors import Refusal
from scoreboard.domain.paths import ADMIN_ME_PATH, ADMIN_SERVER_KEYS_PATH
from scoreboard.domain.roles import Role
from scoreboard.drivers.stores import Stores
from scoreboard.http.request import Request, Response
from scoreboard.storage.postgres import server_keys
from scoreboard.storage.postgres.decisions import NO_SUCH_USER, milliseconds, names
from scoreboard.storage.postgres.server_keys import ListedKey
from scoreboard.web.admin_schemas import (
    AdminServerKey,
    AdminServerKeys,
    AdminServerKeysAnswer,
    OwnRole,
    OwnRoleAnswer,
    ServerKeysQuery,
)
from scoreboard.web.responses import success
from scoreboard.web.route import Route
from scoreboard.web.routes.admin.parameters import read_query
from scoreboard.web.staff import Member, Staff


class AdminConsoleRoutes:
    """The own role, and the server keys."""

    def __init__(self, staff: Staff, stores: Stores) -> None:
        self._staff, self._stores = staff, stores

    def routes(self) -> Iterator[Route]:
        """Both."""
        yield self._staff.route(
            Role.VIEWER, "GET", ADMIN_ME_PATH, self.me, name="admin_me", response_type=OwnRoleAnswer, errors=(404,)
        )
        yield self._staff.route(
            Role.ADMIN,
            "GET",
            ADMIN_SERVER_KEYS_PATH,
            self.server_keys,
            name="admin_server_keys",
            query_type=ServerKeysQuery,
            response_type=AdminServerKeysAnswer,
        )

    async def me(self, _request: Request, member: Member) -> Response | Refusal:
        """Read one's own name and role."""
        user = str(member.user)
        username = (await names(self._stores, [user])).get(user)
        return NO_SUCH_USER if username is None else success(OwnRole(user, username, member.role))

    async def server_keys(self, request: Request, _member: Member) -> Response | Refusal:
        """Read the server keys, revoked ones included, without their secrets: the oldest first."""
        values = read_query(request, ServerKeysQuery)
        if isinstance(values, Refusal):
            return values
        limit, cursor = read_limit(values), read_text_cursor(values)
        if isinstance(limit, Refusal):
            return limit
        if isinstance(cursor, Refusal):
            return cursor
        last = await server_keys.read(self._stores, cursor) if cursor else None
        if cursor and last is None:
            return BAD_CURSOR
        keys = await server_keys.page(self._stores, last, revoked=True, size=limit)
        return success(AdminServerKeys([_key(key) for key in keys], keys[-1].id if len(keys) == limit else None))


def _key(key: ListedKey) -> AdminServerKey:
    return AdminServerKey(
        keyId=key.id,
        name=key.name,
        scopes=list(key.scopes),
        createdAt=rfc3339(milliseconds(key.created_at)),
        lastUsedAt=_time(key.last_used_at),
        expiresAt=_time(key.expires_at),
        revokedAt=_time(key.revoked_at),
        overlaps=key.overlaps,
    )


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(milliseconds(moment))
