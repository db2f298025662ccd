"""Users with roles on a running server, for tests of /admin."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx

from scoreboard.domain.audit import OPERATOR
from scoreboard.domain.roles import Role
from scoreboard.storage.postgres import staff
from scoreboard.web.route import Route
from tests.web.site import WebServer


@dataclass
class Person:
    """A user with a token."""

    server: WebServer
    user: UUID
    token: str

    async def send(self, method: str, path: str, **others: Any) -> httpx.Response:
        """A request to a path below /api/v1/admin/, or to a whole path."""
        path = path if path.startswith("/") else f"/api/v1/admin/{path}"
        return await self.server.http.request(
            method, path, headers={"authorization": f"Bearer {self.token}"} | others.pop("headers", {}), **others
        )


async def person(server: WebServer, name: str, role: Role | None = None) -> Person:
    """A new user with that role."""
    data = await server.register(name)
    made = Person(server, UUID(data["userId"]), data["accessToken"])
    await staff.set_role(server.people.stores, made.user, role, OPERATOR)
    return made


def admin_routes(server: WebServer) -> list[Route]:
    """Every route that needs a role."""
    return [route for route in server.routes if isinstance(route.auth, Role)]


def filled(route: Route, user: UUID) -> str:
    """The route's path about that user; other parameters name nothing that exists."""
    path = route.path.replace("<user>", str(user))
    parts = (("1" if part.startswith("<") else part) for part in path.split("/"))
    return "/".join(parts)
