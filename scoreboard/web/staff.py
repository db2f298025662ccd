"""Routes for those who have a role: each of them is made by `Staff.route`, so none can forget to ask for it.

The role is read from PostgreSQL at each request. Such requests are rare, and so a role that was taken ends at once, on
every node. Without a token the answer is 401, with too little of a role 403, both before the body is read.

Tested in tests/web/test_staff.py.
"""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, NamedTuple
from uuid import UUID

from scoreboard.domain.errors import Refusal
from scoreboard.domain.roles import Role, missing_role
from scoreboard.http.request import Request, Response
from scoreboard.web.authorization import Bearer
from scoreboard.web.problems import problem
from scoreboard.web.route import Route

STAFF_ERRORS = (401, 403)  # statuses that each of these routes may answer


class Member(NamedTuple):
    """Who makes the request, and with which role."""

    user: UUID
    role: Role


StaffHandler = Callable[[Request, Member], Awaitable[Response | Refusal]]
"""A Refusal becomes problem+json."""


class Staff:
    """Finds the role of a request's user."""

    __slots__ = ("_bearer", "_role_of")

    def __init__(self, bearer: Bearer, role_of: Callable[[UUID], Awaitable[Role | None]]) -> None:
        """`role_of` returns the user's role now; it may raise StorageUnavailable, which becomes 503."""
        self._bearer, self._role_of = bearer, role_of

    def route(self, needed: Role, method: str, path: str, handler: StaffHandler, **others: Any) -> Route:
        """A route whose handler is called with whom has the role `needed` or a higher one, and with nobody else.
        `others` are fields of Route."""

        @wraps(handler)
        async def guarded(request: Request) -> Response:
            member = await self.require(request, needed)
            outcome = member if isinstance(member, Refusal) else await handler(request, member)
            return problem(outcome, request.request_id) if isinstance(outcome, Refusal) else outcome

        errors = (*STAFF_ERRORS, *others.pop("errors", ()))
        return Route(method=method, path=path, handler=guarded, auth=needed, errors=errors, **others)

    async def require(self, request: Request, needed: Role) -> Member | Refusal:
        """The member of staff who makes the request. Raises StorageUnavailable."""
        identity = self._bearer.require(request)
        if isinstance(identity, Refusal):
            return identity
        role = await self._role_of(identity.user)
        return missing_role(needed) if role is None or not role.includes(needed) else Member(identity.user, role)
