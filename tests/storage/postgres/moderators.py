"""Users with roles, for tests of what moderators decide."""

from uuid import UUID, uuid4

from scoreboard.domain.audit import OPERATOR
from scoreboard.domain.roles import Role
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres import staff


async def user_with(stores: Stores, role: Role | None = None, name: str = "") -> UUID:
    """A new user with that role."""
    user = uuid4()
    name = name or user.hex
    await stores.execute(
        "INSERT INTO users (id, username, email) VALUES ($1, $2, $3)", user, name, f"{name}@example.org"
    )
    if role is not None:
        await staff.set_role(stores, user, role, OPERATOR)
    return user
