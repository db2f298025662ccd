"""Flags: opened once, decided once, and silent for a while after a decision."""

from uuid import UUID

import asyncpg
import pytest
import trio

from scoreboard.domain.anomalies import AnomalyRule
from scoreboard.domain.flags import Flag, FlagDraft, FlagState, Verdict
from scoreboard.domain.outgoing_messages import Channel
from scoreboard.drivers.stores import Stores
from scoreboard.operations.flags import decide
from scoreboard.storage import flagging
from scoreboard.storage.flagging import Opened, open_flags_aio
from scoreboard.storage.postgres import flags, outgoing_messages
from tests.storage.seeds import make_users


async def flagged(stores: Stores, *users: UUID, rule: AnomalyRule = AnomalyRule.POINTS_JUMP) -> list[Flag]:
    drafts = [FlagDraft(rule, user, {"points": 2000}, 5) for user in users]
    opened: Opened = await stores.in_transaction(open_flags_aio, drafts, alerts=False)
    return opened.flags


async def test_the_second_moderator_learns_what_the_first_decided(stores: Stores) -> None:
    """At the same moment as well: one decision, one audit event."""
    (flag,) = await flagged(stores, *await make_users(stores, 1))
    decisions = list[flags.Decision]()

    async def say(actor: str, verdict: Verdict) -> None:
        decision = await decide(stores, flag.id, verdict, actor, f"says {actor}")
        assert decision is not None
        decisions.append(decision)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(say, "moderator-1", Verdict.APPROVE)
        nursery.start_soon(say, "moderator-2", Verdict.REVOKE)
    assert sorted(decision.is_made for decision in decisions) == [False, True]
    first, second = (decision.flag for decision in decisions)
    assert first == second
    assert first.state is not FlagState.OPEN
    (event,) = await stores.fetch("SELECT kind, actor, subject, details FROM audit_events")
    assert (event["kind"], event["actor"], event["subject"]) == ("flag_decided", first.decided_by, flag.user)
    assert f'"reason": "says {first.decided_by}"' in event["details"]


async def test_a_flag_that_is_not_there(stores: Stores) -> None:
    """None, and no event; also for a number that no flag can have."""
    assert await decide(stores, 7, Verdict.APPROVE, "moderator", "") is None
    assert await decide(stores, 2**63, Verdict.APPROVE, "moderator", "") is None
    assert await decide(stores, -1, Verdict.APPROVE, "moderator", "") is None
    assert await stores.fetchval("SELECT count(*) FROM audit_events") == 0


@pytest.mark.parametrize(("verdict", "quiet_hours"), [(Verdict.APPROVE, 24), (Verdict.REVOKE, 1)])
async def test_a_rule_is_silent_after_a_decision(stores: Stores, verdict: Verdict, quiet_hours: int) -> None:
    """About this user, for a while; then it flags again. Other rules are not silent."""
    (user,) = await make_users(stores, 1)
    (flag,) = await flagged(stores, user)
    await decide(stores, flag.id, verdict, "moderator", "looked at it")
    assert await flagged(stores, user) == []
    assert len(await flagged(stores, user, rule=AnomalyRule.ACTION_RATE)) == 1
    await stores.execute("UPDATE flags SET decided_at = decided_at - make_interval(hours => $1)", quiet_hours)
    assert len(await flagged(stores, user)) == 1


async def test_flags_are_listed_in_pages(stores: Stores) -> None:
    """The newest first, of one state or one user, each once."""
    users = await make_users(stores, 5)
    opened = await flagged(stores, *users)
    await decide(stores, opened[0].id, Verdict.APPROVE, "moderator", "")
    pages, before = list[Flag](), None
    while page := await flags.list_flags(stores, before=before, limit=2):
        pages += page
        before = page[-1].id
    assert [flag.id for flag in pages] == sorted((flag.id for flag in opened), reverse=True)
    assert len(await flags.list_flags(stores, state=FlagState.OPEN)) == 4
    assert [flag.user for flag in await flags.list_flags(stores, user=users[2])] == [users[2]]
    found = await flags.read_flag(stores, opened[0].id)
    assert found is not None
    assert (found.state, found.decided_by) == (FlagState.APPROVED, "moderator")


async def test_old_decisions_are_pruned(stores: Stores) -> None:
    """After a year; open flags stay."""
    first, second = await flagged(stores, *await make_users(stores, 2))
    await decide(stores, first.id, Verdict.APPROVE, "moderator", "")
    await stores.execute("UPDATE flags SET decided_at = decided_at - interval '366 days'")
    await flags.prune(stores)
    assert [flag.id for flag in await flags.list_flags(stores)] == [second.id]


async def test_a_finding_about_many_is_flagged_once(stores: Stores) -> None:
    """By its scope, whoever it names."""
    users = await make_users(stores, 2)
    drafts = [FlagDraft(AnomalyRule.SHARED_ADDRESS, user, {"accounts": 9}, scope=b"network") for user in users]
    opened = await stores.in_transaction(open_flags_aio, drafts, alerts=True)
    assert [flag.user for flag in opened.flags] == users[:1]
    assert opened.alerts == 1
    assert (await stores.in_transaction(open_flags_aio, drafts, alerts=True)).flags == []


async def test_flag_and_alert_are_one_transaction(stores: Stores) -> None:
    """Neither is there when it is rolled back."""
    (user,) = await make_users(stores, 1)

    async def fail(conn: asyncpg.Connection) -> None:
        await open_flags_aio(conn, [FlagDraft(AnomalyRule.POINTS_JUMP, user, {}, 1)], alerts=True)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await stores.in_transaction(fail)
    assert await flags.list_flags(stores) == []
    assert await outgoing_messages.claim(stores, [Channel.ALERTS], 10) == []


async def test_alerts_beyond_a_full_outbox_are_counted(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flags are there all the same."""
    monkeypatch.setattr(outgoing_messages, "MAX_PENDING", 1)
    drafts = [FlagDraft(AnomalyRule.POINTS_JUMP, user, {}, 1) for user in await make_users(stores, 3)]
    opened = await stores.in_transaction(open_flags_aio, drafts, alerts=True)
    assert (len(opened.flags), opened.alerts, opened.alerts_dropped) == (3, 1, 2)
    assert flagging.MAX_ALERTS_AN_HOUR > 3
