"""Roles: who may give and take them, and what a change leaves behind."""

import json
from uuid import uuid4

import trio

from scoreboard.domain.audit import OPERATOR
from scoreboard.domain.roles import LAST_ADMIN, OWN_ROLE, Role, missing_role
from scoreboard.domain.sessions import SERVER_CLIENT
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres import staff
from tests.storage.postgres.moderators import user_with


async def test_a_role_is_given_changed_and_taken_with_an_audit_event_each(stores: Stores) -> None:
    """The operator may do all of it; giving the same role again leaves no event."""
    user = await user_with(stores)
    assert await staff.role_of(stores, user) is None
    for role in (Role.VIEWER, Role.ADMIN, Role.ADMIN, None):
        await staff.set_role(stores, user, role, OPERATOR)
        assert await staff.role_of(stores, user) is role
    events = await stores.fetch("SELECT kind, actor, subject, details FROM audit_events ORDER BY id")
    assert {(event["kind"], event["actor"], event["subject"]) for event in events} == {
        ("role_changed", "operator", user)
    }
    changes = [json.loads(event["details"]) for event in events]
    assert [(change["before"], change["after"]) for change in changes] == [
        ("none", "viewer"),
        ("viewer", "admin"),
        ("admin", "none"),
    ]


async def test_whoever_gets_a_role_loses_the_sessions_that_server_keys_have_opened(stores: Stores) -> None:
    """A game's server could use one with the role. The user's own sessions go on, and so do those of other users."""
    user, other = await user_with(stores), await user_with(stores)
    for owner, client in ((user, SERVER_CLIENT), (user, "Firefox on Linux"), (user, None), (other, SERVER_CLIENT)):
        await stores.execute(
            """INSERT INTO sessions (id, user_id, token_sha256, expires_at, client)
               VALUES (gen_random_uuid(), $1, '', now() + interval '1 day', $2)""",
            owner,
            client,
        )
    ended = "SELECT user_id, client FROM sessions WHERE revoked_at IS NOT NULL"
    await staff.set_role(stores, user, None, OPERATOR)
    assert await stores.fetch(ended) == []
    await staff.set_role(stores, user, Role.VIEWER, OPERATOR)
    assert [tuple(row) for row in await stores.fetch(ended)] == [(user, SERVER_CLIENT)]


async def test_who_is_not_there_has_no_role_and_gets_none(stores: Stores) -> None:
    assert await staff.role_of(stores, uuid4()) is None
    assert await staff.set_role(stores, uuid4(), Role.VIEWER, OPERATOR) is None
    assert await stores.fetchval("SELECT count(*) FROM audit_events") == 0


async def test_only_an_admin_gives_roles_and_nobody_to_himself(stores: Stores) -> None:
    """Whatever the route has let pass: the actor's role is read again in the transaction."""
    moderator, nobody = await user_with(stores, Role.MODERATOR), await user_with(stores)
    for actor in (moderator, nobody, uuid4()):
        assert await staff.set_role(stores, nobody, Role.VIEWER, actor) == missing_role(Role.ADMIN)
        assert await staff.set_role(stores, actor, Role.ADMIN, actor) == missing_role(Role.ADMIN)
    admin = await user_with(stores, Role.ADMIN)
    assert await staff.set_role(stores, admin, Role.ADMIN, admin) == staff.RoleChange(Role.ADMIN, Role.ADMIN)
    assert await staff.set_role(stores, nobody, Role.MODERATOR, admin) == staff.RoleChange(None, Role.MODERATOR)
    assert OWN_ROLE.code == missing_role(Role.ADMIN).code


async def test_the_last_admin_cannot_give_the_role_away(stores: Stores) -> None:
    """With another admin he can."""
    admin = await user_with(stores, Role.ADMIN)
    for role in (None, Role.VIEWER, Role.MODERATOR):
        assert await staff.set_role(stores, admin, role, admin) == LAST_ADMIN
    await user_with(stores, Role.ADMIN)
    assert await staff.set_role(stores, admin, Role.VIEWER, admin) == staff.RoleChange(Role.ADMIN, Role.VIEWER)


async def test_two_admins_who_take_the_role_from_one_another_leave_one(stores: Stores) -> None:
    """At the same moment, many times."""
    for _ in range(10):
        await stores.execute("UPDATE users SET role = NULL")
        first, second = await user_with(stores, Role.ADMIN), await user_with(stores, Role.ADMIN)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(staff.set_role, stores, first, None, second)
            nursery.start_soon(staff.set_role, stores, second, None, first)
        assert await stores.fetchval("SELECT count(*) FROM users WHERE role = 'admin'") == 1
