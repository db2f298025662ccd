"""Routes for a role: who gets to the handler. The role is asked for at each request."""

from collections.abc import Iterator
from uuid import UUID

import pytest

from scoreboard.domain.errors import StorageUnavailable
from scoreboard.domain.roles import Role
from scoreboard.http.request import Request, Response
from scoreboard.web.authorization import Bearer
from scoreboard.web.responses import no_content
from scoreboard.web.route import Route
from scoreboard.web.staff import Member, Staff
from tests.operations.people import database_url
from tests.web.site import serve_web

__all__ = ["database_url"]  # the module's own fixture


class Roles:
    """Whose role is what, and who came to the handlers."""

    def __init__(self) -> None:
        self.of: dict[UUID, Role] = {}
        self.is_away = False
        self.came: list[Member] = []

    async def role_of(self, user: UUID) -> Role | None:
        if self.is_away:
            raise StorageUnavailable("postgresql", "it is away")
        return self.of.get(user)

    def routes(self, bearer: Bearer) -> Iterator[Route]:
        """A route for each role."""
        staff = Staff(bearer, self.role_of)
        for role in Role:
            yield staff.route(role, "POST", f"/api/v1/for/{role}", self._come)

    async def _come(self, request: Request, member: Member) -> Response:
        """Come in."""
        self.came.append(member)
        return no_content()


@pytest.mark.parametrize("role", [None, *Role])
async def test_each_role_gets_to_its_own_routes_and_to_no_higher_ones(
    database_url: str, redis_url: str, role: Role | None
) -> None:
    roles = Roles()
    async with serve_web(database_url, redis_url, more_routes=roles.routes) as server:
        ada = await server.register()
        if role is not None:
            roles.of[UUID(ada["userId"])] = role
        for needed in Role:
            allowed = role is not None and role.includes(needed)
            headers = {"authorization": f"Bearer {ada['accessToken']}"}
            answer = await server.http.post(f"/api/v1/for/{needed}", headers=headers)
            assert answer.status_code == (204 if allowed else 403), answer.text
            assert allowed or answer.json()["code"] == "FORBIDDEN"
            assert bool(roles.came) is allowed
            roles.came.clear()


async def test_without_a_valid_token_there_is_401_whatever_the_body(database_url: str, redis_url: str) -> None:
    roles = Roles()
    async with serve_web(database_url, redis_url, more_routes=roles.routes) as server:
        for headers in ({}, {"authorization": "Bearer a.b.c"}):
            answer = await server.http.post("/api/v1/for/viewer", headers=headers, content=b"\0")
            assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHORIZED")
    assert roles.came == []


async def test_a_role_that_was_taken_a_moment_ago_ends_with_the_next_request(database_url: str, redis_url: str) -> None:
    """The token stays valid for everything else. While the role can't be read, nobody has one: 503."""
    roles = Roles()
    async with serve_web(database_url, redis_url, more_routes=roles.routes) as server:
        ada = await server.register()
        headers = {"authorization": f"Bearer {ada['accessToken']}"}
        roles.of[UUID(ada["userId"])] = Role.ADMIN
        assert (await server.http.post("/api/v1/for/admin", headers=headers)).status_code == 204
        roles.is_away = True
        assert (await server.http.post("/api/v1/for/admin", headers=headers)).status_code == 503
        roles.is_away = False
        roles.of.clear()
        assert (await server.http.post("/api/v1/for/admin", headers=headers)).status_code == 403
        assert (await server.http.get("/api/v1/users/me", headers=headers)).status_code == 200
    assert [member.role for member in roles.came] == [Role.ADMIN]
