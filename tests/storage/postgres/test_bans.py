"""Bans: who may put them on and lift them, what two moderators are told, and what stays behind.

Also tests storage/postgres/decisions.
"""

import json
from functools import partial
from uuid import UUID, uuid4

import pytest
import trio

from scoreboard.domain.audit import OPERATOR
from scoreboard.domain.bans import Ban, banned
from scoreboard.domain.errors import Code, Refusal
from scoreboard.domain.roles import Role
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres import bans, staff
from scoreboard.storage.postgres.decisions import NO_SUCH_USER, OWN_CASE
from tests.storage.postgres.moderators import user_with


def code(outcome: object) -> Code:
    assert isinstance(outcome, Refusal), outcome
    return outcome.code


async def ban_of(stores: Stores, user: UUID) -> int:
    return int(await stores.fetchval("SELECT ban FROM users WHERE id = $1", user))


async def events(stores: Stores) -> list[tuple[str, str, UUID, dict[str, object]]]:
    rows = await stores.fetch(
        "SELECT kind, actor, subject, details FROM audit_events WHERE kind <> 'role_changed' ORDER BY id"
    )
    return [(row["kind"], row["actor"], row["subject"], json.loads(row["details"])) for row in rows]


@pytest.mark.parametrize("kind", [Ban.SHADOW, Ban.FULL])
async def test_a_ban_and_its_end_are_kept_as_history_with_an_event_each(stores: Stores, kind: Ban) -> None:
    """The reason stays out of the audit event, which outlives the user. A user may be banned again."""
    mod, other, user = [await user_with(stores, role) for role in (Role.MODERATOR, Role.ADMIN, None)]
    first = await bans.put_on(stores, user, kind, "a bot", mod, is_reason_shown=True)
    assert await ban_of(stores, user) == kind
    assert await bans.lift(stores, user, other) == first
    assert await ban_of(stores, user) == Ban.NONE
    second = await bans.put_on(stores, user, Ban.FULL, "again", mod)
    rows = await stores.fetch("SELECT * FROM bans ORDER BY id")
    assert [(row["id"], row["kind"], row["reason"], row["is_reason_shown"]) for row in rows] == [
        (first, kind, "a bot", True),
        (second, Ban.FULL, "again", False),
    ]
    assert [(row["actor"], row["lifted_by"], row["lifted_at"] is None) for row in rows] == [
        (str(mod), str(other), False),
        (str(mod), None, True),
    ]
    assert await events(stores) == [
        ("user_banned", str(mod), user, {"ban": first, "shadow": kind is Ban.SHADOW}),
        ("ban_lifted", str(other), user, {"ban": first, "shadow": kind is Ban.SHADOW}),
        ("user_banned", str(mod), user, {"ban": second, "shadow": False}),
    ]


async def test_of_two_moderators_at_once_the_second_is_told_what_was_decided(stores: Stores) -> None:
    """By whom and when, whichever of them is first. The same for the end of a ban."""
    user = await user_with(stores)
    people = [await user_with(stores, Role.MODERATOR, name) for name in ("Mia", "Max")]
    outcomes: dict[UUID, object] = {}

    async def decide(actor: UUID, lifts: bool) -> None:
        if lifts:
            outcomes[actor] = await bans.lift(stores, user, actor)
        else:
            outcomes[actor] = await bans.put_on(stores, user, Ban.FULL, "a bot", actor)

    for lifts, words in ((False, "This user has a ban already, by"), (True, "The ban was lifted already, by")):
        outcomes.clear()
        async with trio.open_nursery() as nursery:
            for actor in people:
                nursery.start_soon(decide, actor, lifts)
        (refused,) = [outcome for outcome in outcomes.values() if isinstance(outcome, Refusal)]
        winner = "Mia" if isinstance(outcomes[people[0]], int) else "Max"
        assert refused.code is Code.CONFLICT
        assert refused.detail.startswith(f"{words} {winner} at 2")
    assert [kind for kind, *_ in await events(stores)] == ["user_banned", "ban_lifted"]


async def test_who_may_not_decide(stores: Stores) -> None:
    """Nobody about himself, a moderator not about an admin, a viewer and everybody else about nobody; the role is read
    in the transaction, so one that was taken a moment ago counts no more. Nothing is written."""
    mod, admin, viewer, user = [
        await user_with(stores, role) for role in (Role.MODERATOR, Role.ADMIN, Role.VIEWER, None)
    ]
    put_on = partial(bans.put_on, stores)
    for actor in (mod, admin):
        assert await put_on(actor, Ban.FULL, "me", actor) == OWN_CASE
        assert await bans.lift(stores, actor, actor) == OWN_CASE
    assert code(await put_on(admin, Ban.SHADOW, "no", mod)) is Code.FORBIDDEN
    for actor in (viewer, user, uuid4()):
        assert code(await put_on(user, Ban.SHADOW, "no", actor)) is Code.FORBIDDEN
        assert code(await bans.lift(stores, user, actor)) is Code.FORBIDDEN
    await staff.set_role(stores, mod, Role.VIEWER, OPERATOR)
    assert code(await put_on(user, Ban.SHADOW, "no", mod)) is Code.FORBIDDEN
    assert await put_on(uuid4(), Ban.SHADOW, "no", admin) == NO_SUCH_USER
    assert await bans.lift(stores, user, admin) == bans.NEVER_BANNED
    assert await events(stores) == []
    assert await stores.fetchval("SELECT count(*) FROM bans") == 0
    assert await stores.fetchval("SELECT count(*) FROM users WHERE ban <> 0") == 0


async def test_an_admin_may_ban_a_moderator_and_another_admin(stores: Stores) -> None:
    admin = await user_with(stores, Role.ADMIN)
    for role in (Role.MODERATOR, Role.ADMIN):
        subject = await user_with(stores, role)
        assert isinstance(await bans.put_on(stores, subject, Ban.FULL, "a bot", admin), int)


async def test_a_ban_by_plain_sql_is_in_force_and_can_be_lifted(stores: Stores) -> None:
    mod, user = await user_with(stores, Role.MODERATOR), await user_with(stores)
    await stores.execute("UPDATE users SET ban = 2 WHERE id = $1", user)
    refused = await bans.put_on(stores, user, Ban.FULL, "a bot", mod)
    assert isinstance(refused, Refusal)
    assert "by the database's operator" in refused.detail
    assert await bans.lift(stores, user, mod) == 0
    assert await ban_of(stores, user) == Ban.NONE


async def test_a_deleted_user_takes_bans_and_reasons_along(stores: Stores) -> None:
    mod, user = await user_with(stores, Role.MODERATOR), await user_with(stores)
    await bans.put_on(stores, user, Ban.FULL, "a bot called Ann", mod)
    await stores.execute("DELETE FROM users WHERE id = $1", user)
    assert await stores.fetchval("SELECT count(*) FROM bans") == 0
    assert "Ann" not in str(await events(stores))


def test_what_a_banned_user_is_told() -> None:
    assert banned(None) == Refusal(Code.FORBIDDEN, "This account is banned.")
    assert banned("a bot").detail == "This account is banned: a bot"
