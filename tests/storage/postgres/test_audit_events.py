"""Audit events: in one transaction with their change, and never changed afterwards."""

from uuid import uuid4

import asyncpg
import pytest

from scoreboard.domain.audit import OPERATOR, SYSTEM, AuditEvent, AuditKind
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres import audit_events, users

EVENT = AuditEvent(AuditKind.USER_ERASED, OPERATOR, uuid4(), {"reason": "asked for it"})


async def test_events_get_order_numbers_in_their_order_which_are_those_of_actions_too(stores: Stores) -> None:
    before = await stores.fetchval("SELECT nextval('commit_ids')")
    await stores.in_transaction(audit_events.add_aio, [EVENT, EVENT._replace(actor=SYSTEM, subject=None)])
    first, second = await stores.fetch("SELECT * FROM audit_events ORDER BY id")
    assert [first["id"], second["id"]] == [(before + 1) * 4096, (before + 2) * 4096]
    assert (first["kind"], first["actor"], first["subject"]) == ("user_erased", "operator", EVENT.subject)
    assert first["details"] == '{"reason": "asked for it"}'
    assert (second["actor"], second["subject"]) == ("system", None)


@pytest.mark.parametrize(
    "sql", ["UPDATE audit_events SET actor = 'me'", "DELETE FROM audit_events", "TRUNCATE audit_events"]
)
async def test_an_event_is_never_changed_or_removed(stores: Stores, sql: str) -> None:
    await stores.in_transaction(audit_events.add_aio, [EVENT])
    with pytest.raises(asyncpg.RestrictViolationError, match="never changed"):
        await stores.execute(sql)
    assert await stores.fetchval("SELECT count(*) FROM audit_events") == 1


async def test_a_deleted_user_leaves_an_event_and_one_who_is_not_there_none(stores: Stores) -> None:
    user = uuid4()
    assert not await users.delete(stores, user, OPERATOR)
    await stores.execute("INSERT INTO users (id, username, email) VALUES ($1, 'Ann', 'ann@example.org')", user)
    assert await users.delete(stores, user, OPERATOR)
    (event,) = await stores.fetch("SELECT kind, actor, subject, details FROM audit_events")
    assert tuple(event) == ("user_erased", "operator", user, "{}")


async def test_events_are_read_in_pages_of_a_kind_and_about_a_user(stores: Stores) -> None:
    """The newest first, with the name of an actor who is a user."""
    ann, bob = uuid4(), uuid4()
    await stores.execute("INSERT INTO users (id, username, email) VALUES ($1, 'Ann', 'ann@example.org')", ann)
    kinds = (AuditKind.USER_BANNED, AuditKind.BAN_LIFTED)
    made = [AuditEvent(kinds[number % 2], str(ann), (ann, bob)[number // 2 % 2]) for number in range(8)]
    await stores.in_transaction(audit_events.add_aio, made)
    everything = await audit_events.page(stores, 100)
    assert [(event.kind, event.subject) for event in everything] == [(each.kind, each.subject) for each in made[::-1]]
    assert {event.actor_name for event in everything} == {"Ann"}
    assert await audit_events.page(stores, 3) == everything[:3]
    assert await audit_events.page(stores, 3, everything[2].id) == everything[3:6]
    for kind in (None, *kinds):
        for subject in (None, ann, bob):
            expected = [
                event for event in everything if kind in {None, event.kind} and subject in {None, event.subject}
            ]
            assert await audit_events.page(stores, 100, kind=kind, subject=subject) == expected
