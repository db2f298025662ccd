"""What moderators find and read: users without their addresses, and one history out of five tables.

Also tests storage/postgres/notes.
"""

from uuid import uuid4

import pytest

from scoreboard.domain.anomalies import AnomalyRule
from scoreboard.domain.bans import Ban
from scoreboard.domain.errors import Code, Refusal
from scoreboard.domain.flags import FlagDraft, Verdict
from scoreboard.domain.roles import Role
from scoreboard.drivers.stores import Stores
from scoreboard.operations.flags import decide
from scoreboard.storage.postgres import bans, flags, moderated_users, notes, reversals
from scoreboard.storage.postgres.moderated_users import NEWEST, FoundUser
from tests.storage.postgres.moderators import user_with
from tests.storage.seeds import claim
from tests.storage.two_boards import BOARDS, TwoBoardNode


async def test_users_are_found_by_the_beginning_of_the_name_the_address_or_the_id(stores: Stores) -> None:
    """Case makes no difference. By a part of the address nobody is found: it could be guessed piece by piece."""
    ada = await user_with(stores, Role.VIEWER, "Ada")
    adam, bea = await user_with(stores, name="adam"), await user_with(stores, name="Bea")

    async def search(query: str, limit: int) -> list[FoundUser]:
        found, following = await moderated_users.search(stores, query, limit)
        assert following is None
        return found

    assert [found.user for found in await search("", 10)] == [ada, adam, bea]
    assert [found.user for found in await search("AD", 10)] == [ada, adam]
    assert [found.user for found in await search("BEA@EXAMPLE.ORG", 10)] == [bea]
    assert [found.user for found in await search(str(bea), 10)] == [bea]
    for nobody in ("da", "bea@", "@example.org", "ea@example.org", "bea@example.or", str(uuid4()), "%", "_"):
        assert await search(nobody, 10) == []
    (first,) = await search("ada@example.org", 10)
    assert (first.role, first.ban, first.score) == (Role.VIEWER, Ban.NONE, None)
    assert "example" not in repr(first)


async def test_a_search_has_pages(stores: Stores) -> None:
    """Each begins after the key of the last user of the one before."""
    made = [await user_with(stores, name=f"P{number}") for number in range(5)]
    page, after = await moderated_users.search(stores, "p", 2)
    found = [each.user for each in page]
    while after is not None:
        page, after = await moderated_users.search(stores, "p", 2, after)
        assert len(page) <= 2
        found += [each.user for each in page]
    assert found == made


async def test_users_are_found_by_the_id_that_somebody_else_gave(stores: Stores) -> None:
    """Of any issuer or game server, first of all. The hash of a guest's device key finds nobody."""
    ada, bea = await user_with(stores, name="Ada"), await user_with(stores, name="Bea")
    cid = await user_with(stores, name="Steam-7 and more")
    for provider, external, user in (
        ("server", "steam-7", ada),
        ("school", "steam-7", bea),
        ("device", "ab" * 32, cid),
        ("zoo", "steam-8", cid),
    ):
        await stores.execute(
            "INSERT INTO identities (provider, external_id, user_id) VALUES ($1, $2, $3)", provider, external, user
        )
    found, following = await moderated_users.search(stores, "steam-7", 1)
    assert [each.user for each in found] == [ada, bea, cid]
    assert following == "steam-7 and more"
    assert await moderated_users.search(stores, "steam-7", 1, following) == ([], None)
    assert await moderated_users.search(stores, "ab" * 32, 10) == ([], None)
    found, _ = await moderated_users.search(stores, "steam-8", 10)
    assert [each.user for each in found] == [cid]


async def test_a_search_reads_the_index_of_names(stores: Stores) -> None:
    """However many users there are, and when nobody matches: the range of the index has an end."""
    await stores.execute(
        "INSERT INTO users (username, email) "
        "SELECT 'u' || n, 'u' || n || '@example.org' FROM generate_series(1, 5000) n"
    )
    await stores.execute("ANALYZE users")
    sql = moderated_users.BY_NAME_SQL.replace("$1", "10").replace("$2", "'aa'").replace("$3", "NULL")
    plan = "\n".join(row[0] for row in await stores.fetch(f"EXPLAIN {sql}"))
    assert "users_username_folded" in plan
    assert "Index Cond: ((lower" in plan
    assert "< " in plan.partition("Index Cond")[2].partition("\n")[0]


async def test_the_history_is_one_timeline_newest_first(stores: Stores) -> None:
    """Actions with whether they count, bans, reversals and notes; actors by name. Pages leave nothing out."""
    node = TwoBoardNode(stores)
    await node.converge()
    mia, ann = await user_with(stores, Role.MODERATOR, "Mia"), await user_with(stores, name="Ann")
    await node.submit(claim(ann, points=10, action_id="a1"))
    await node.submit(claim(ann, points=5, action_id="a2"))
    await reversals.reverse(stores, BOARDS, ann, "a1", "not played", mia)
    assert isinstance(await notes.add(stores, ann, "asked by mail", mia), int)
    (draft,) = await stores.in_transaction(flags.open_aio, [FlagDraft(AnomalyRule.POINTS_JUMP, ann, {"points": 2000})])
    await decide(stores, draft.id, Verdict.REVOKE, str(mia), "a bot")
    await bans.put_on(stores, ann, Ban.FULL, "a bot", mia, is_reason_shown=True)
    await bans.lift(stores, ann, mia)
    history = await moderated_users.history(stores, ann, 50)
    assert [entry.kind for entry in history] == ["ban", "flag", "note", "reversal", "action", "action"]
    ban, flag, note, reversal, newer, older = (dict(entry.details) for entry in history)
    assert ban.pop("liftedAt") >= history[0].at_ms
    assert ban == {"shadow": False, "reason": "a bot", "reasonShown": True, "by": "Mia", "liftedBy": "Mia"}
    assert (flag["rule"], flag["state"], flag["by"]) == ("points_jump", "revoked", "Mia")
    assert note == {"note": "asked by mail", "by": "Mia"}
    assert reversal == {
        "actionId": "a1",
        "reason": "not played",
        "by": "Mia",
        "undoneAt": None,
        "undoneBy": None,
    }
    assert (older["actionId"], older["points"], older["isReversed"]) == ("a1", 10, True)
    assert (newer["actionId"], newer["newScore"], newer["isReversed"]) == ("a2", 15, False)
    paged, before = list[object](), NEWEST
    while page := await moderated_users.history(stores, ann, 2, before):
        paged += page
        before = page[-1].place
    assert paged == history
    assert await moderated_users.history(stores, mia, 50) == []
    node.close()


async def test_one_user_with_open_sessions(stores: Stores) -> None:
    """Ended and expired ones do not count. Nobody is None."""
    ann = await user_with(stores, name="Ann")
    for expires, revoked in (("1 day", None), ("1 day", "now()"), ("-1 day", None)):
        await stores.execute(
            f"INSERT INTO sessions (id, user_id, token_sha256, expires_at, revoked_at) VALUES "
            f"(gen_random_uuid(), $1, '', now() + interval '{expires}', {revoked or 'NULL'})",
            ann,
        )
    found = await moderated_users.read_user(stores, ann)
    assert found is not None
    assert (found[0].username, found[1]) == ("Ann", 1)
    assert await moderated_users.read_user(stores, uuid4()) is None


async def test_notes_are_bounded(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    mia, ann = await user_with(stores, Role.MODERATOR, "Mia"), await user_with(stores, name="Ann")
    monkeypatch.setattr(notes, "MAX_NOTES", 2)
    for _ in range(2):
        assert isinstance(await notes.add(stores, ann, "one", mia), int)
    refused = await notes.add(stores, ann, "one too many", mia)
    assert isinstance(refused, Refusal)
    assert refused.code is Code.CONFLICT
    kinds = await stores.fetch("SELECT kind FROM audit_events WHERE subject = $1", ann)
    assert [row["kind"] for row in kinds] == ["note_added"] * 2
