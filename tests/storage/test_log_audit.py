"""`scoreboard verify` on the transparency log: every way to tamper with it that we know of is found and named, and what
is allowed is not."""

from uuid import UUID, uuid4

import pytest

from scoreboard.domain.audit import OPERATOR, SYSTEM, AuditEvent, AuditKind
from scoreboard.domain.merkle import leaf_hash, node_hash
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.stores import Stores
from scoreboard.security.checkpoints import LogSigner, open_checkpoint
from scoreboard.storage import sealing
from scoreboard.storage.log_audit import LogCounts, log_differences_aio
from scoreboard.storage.postgres import audit_events, users
from tests.storage.seeds import make_users
from tests.storage.test_sealing import SIGNER, record, seal_all


def read_note(note: str) -> tuple[int, bytes] | None:
    opened = open_checkpoint(note, SIGNER.verifier)
    return (opened.size, opened.root) if opened else None


async def differences(stores: Stores) -> tuple[dict[str, str], LogCounts]:
    return await run_in_asyncio(log_differences_aio, stores, read_note)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several batches, and a kept checkpoint for each size at which the sealer had nothing left to do."""
    monkeypatch.setattr(sealing, "BATCH_LEAVES", 7)
    monkeypatch.setattr(sealing, "CHECKPOINT_SECONDS", 0)


@pytest.fixture
async def players(stores: Stores) -> list[UUID]:
    """Four users with five actions each, and an event; sealed. Whoever owns the tables may drop their triggers."""
    players = await make_users(stores, 4)
    await record(stores, players, each=3)
    await stores.in_transaction(audit_events.add_aio, [AuditEvent(AuditKind.USER_ERASED, OPERATOR, uuid4(), {"n": 1})])
    await record(stores, players, each=2)
    assert await seal_all(stores) == 21
    for table in ("audit_events", "log_leaves", "log_nodes", "log_checkpoints"):
        await stores.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    return players


async def test_a_log_that_nobody_touched_has_no_differences(stores: Stores, players: list[UUID]) -> None:
    assert await differences(stores) == ({}, LogCounts(21, 0, 0, 3))
    await record(stores, players)
    assert await differences(stores) == ({}, LogCounts(21, 0, 0, 3))  # what is not sealed yet is not judged


async def test_an_empty_log_has_no_differences(stores: Stores) -> None:
    assert await differences(stores) == ({}, LogCounts(0, 0, 0, 0))


SOMEWHERE = "(SELECT seq FROM action_logs ORDER BY seq OFFSET 8 LIMIT 1)"


@pytest.mark.parametrize(
    "change",
    [
        "points_awarded = points_awarded + 1",
        "new_score = new_score + 1",
        "action_id = action_id || 'x'",
        "action_type = 'level_up'",
        "signature = 'cd'",
        "metadata = NULL",
        "metadata = metadata || '{\"n\": 1.51}'",
        "processed_at = processed_at + interval '2 milliseconds'",
    ],
)
async def test_a_changed_action_is_named(stores: Stores, players: list[UUID], change: str) -> None:
    await stores.execute(f"UPDATE action_logs SET {change} WHERE seq = {SOMEWHERE}")
    row = await stores.fetchrow(f"SELECT seq, user_id FROM action_logs WHERE seq = {SOMEWHERE}")
    assert row is not None
    found, _ = await differences(stores)
    (about,) = found
    assert about == f"record {row['seq']} of user {row['user_id']}"
    assert "was changed" in found[about]


async def test_an_action_given_to_another_user_is_named(stores: Stores, players: list[UUID]) -> None:
    seq = await stores.fetchval(
        f"UPDATE action_logs SET user_id = (SELECT id FROM users WHERE id <> user_id LIMIT 1) WHERE seq = {SOMEWHERE} "
        "RETURNING seq"
    )
    found, _ = await differences(stores)
    assert [about.split(" of ")[0] for about in found] == [f"record {seq}"]


async def test_a_removed_action_is_named(stores: Stores, players: list[UUID]) -> None:
    seq = await stores.fetchval(f"DELETE FROM action_logs WHERE seq = {SOMEWHERE} RETURNING seq")
    found, _ = await differences(stores)
    assert [(about.split(" of ")[0], what) for about, what in found.items()] == [
        (f"record {seq}", "was removed: the log has it, and its row is not there")
    ]


async def test_the_last_action_removed_is_named(stores: Stores, players: list[UUID]) -> None:
    await stores.execute("DELETE FROM action_logs WHERE seq = (SELECT max(seq) FROM action_logs)")
    found, _ = await differences(stores)
    assert list(found.values()) == ["was removed: the log has it, and its row is not there"]


async def test_an_inserted_action_is_named(stores: Stores, players: list[UUID]) -> None:
    await stores.execute(
        "INSERT INTO action_logs (user_id, action_id, action_type, points_awarded, new_score, seq, signature) "
        "SELECT user_id, 'forged', action_type, 1000, 1020, seq + 100, signature FROM action_logs "
        f"WHERE seq = {SOMEWHERE}"
    )
    found, _ = await differences(stores)
    assert len(found) == 1
    assert "was inserted" in next(iter(found.values()))


async def test_a_copy_of_an_action_is_named(stores: Stores, players: list[UUID]) -> None:
    """The same row twice, under the same number."""
    await stores.execute(
        "WITH copied AS (SELECT user_id, action_id, action_type, points_awarded, new_score, seq, signature, metadata, "
        f"processed_at FROM action_logs WHERE seq = {SOMEWHERE}) INSERT INTO action_logs (user_id, action_id, "
        "action_type, points_awarded, new_score, seq, signature, metadata, processed_at) SELECT * FROM copied"
    )
    found, _ = await differences(stores)
    assert ["was inserted" in what for what in found.values()] == [True]


async def test_two_actions_that_changed_places_are_named(stores: Stores, players: list[UUID]) -> None:
    one, two = (row["seq"] for row in await stores.fetch("SELECT seq FROM action_logs ORDER BY seq OFFSET 4 LIMIT 2"))
    await stores.execute("UPDATE action_logs SET seq = $1 + $2 - seq WHERE seq IN ($1, $2)", one, two)
    found, _ = await differences(stores)
    assert sorted(about.split(" of ")[0] for about in found) == [f"record {one}", f"record {two}"]


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE audit_events SET actor = 'somebody'",
        "UPDATE audit_events SET kind = 'log_pruned', details = '{\"below\": 0}'",
        "UPDATE audit_events SET details = '{\"n\": 2}'",
        "DELETE FROM audit_events",
    ],
)
async def test_a_changed_or_removed_event_is_named(stores: Stores, players: list[UUID], sql: str) -> None:
    order = await stores.fetchval("SELECT id FROM audit_events")
    await stores.execute(sql)
    found, _ = await differences(stores)
    assert [about.split(" of ")[0] for about in found] == [f"record {order}"]


async def test_an_erased_user_is_no_difference(stores: Stores, players: list[UUID]) -> None:
    """His leaves stay; his rows are allowed to be missing, since the erasure is in the log."""
    assert await users.delete(stores, players[0], OPERATOR)
    assert await differences(stores) == ({}, LogCounts(21, 5, 0, 3))
    await seal_all(stores)
    assert await differences(stores) == ({}, LogCounts(22, 5, 0, 4))


async def test_a_user_who_was_removed_by_hand_is_named(stores: Stores, players: list[UUID]) -> None:
    """Without an erasure in the log. An erasure from before his actions does not excuse it."""
    await stores.execute("DELETE FROM users WHERE id = $1", players[0])
    found, counts = await differences(stores)
    assert set(found.values()) == {"was removed with its user, and no erasure is in the log"}
    assert (len(found), counts.erased) == (5, 0)
    await stores.execute(
        "INSERT INTO audit_events (id, kind, actor, subject) VALUES (0, 'user_erased', 'operator', $1)", players[0]
    )
    found, _ = await differences(stores)
    assert len(found) == 6  # and the event was inserted


async def test_rows_that_a_rule_removed_are_no_difference(stores: Stores, players: list[UUID]) -> None:
    """The rule says in the log up to where."""
    below = await stores.fetchval(f"SELECT {SOMEWHERE}")
    await stores.execute("DELETE FROM action_logs WHERE seq < $1", below)
    found, _ = await differences(stores)
    assert len(found) == 8
    event = AuditEvent(AuditKind.LOG_PRUNED, SYSTEM, None, {"below": below})
    await stores.in_transaction(audit_events.add_aio, [event])
    found, counts = await differences(stores)
    assert (found, counts.pruned) == ({}, 8)


@pytest.mark.parametrize("level", [0, 1, 2, 3])
async def test_a_changed_hash_of_the_tree_is_named(stores: Stores, players: list[UUID], level: int) -> None:
    await stores.execute(
        "UPDATE log_nodes SET hashes = set_byte(hashes, 5, (get_byte(hashes, 5) + 1) % 256) "
        "WHERE level = $1 AND first = (SELECT min(first) FROM log_nodes WHERE level = $1)",
        level,
    )
    found, _ = await differences(stores)
    assert found
    assert all(about.startswith(("record", "log_nodes", "checkpoint")) for about in found)


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM log_nodes WHERE level = 1 AND first = 0",
        "DELETE FROM log_nodes WHERE level = 0 AND first = 7",
        "DELETE FROM log_leaves WHERE first = 7",
        "DELETE FROM log_leaves WHERE first = 14; DELETE FROM log_nodes WHERE level = 0 AND first = 14",
        "INSERT INTO log_nodes VALUES (40, 0, '\\x00')",
        "UPDATE log_leaves SET orders = orders[1:3] || 1::bigint || orders[5:] WHERE first = 0",
        "UPDATE log_leaves SET orders[1] = orders[2], orders[2] = orders[1] WHERE first = 7",
        "UPDATE log_leaves SET first_order = 0 WHERE first = 7",
        "UPDATE log_leaves SET subjects = '{}' WHERE first = 7",
        "UPDATE log_leaves SET first = 1000 WHERE first = 14",
    ],
)
async def test_a_tree_with_other_rows_is_named(stores: Stores, players: list[UUID], sql: str) -> None:
    for statement in sql.split("; "):
        await stores.execute(statement)
    found, _ = await differences(stores)
    assert found


async def test_a_tree_that_was_made_anew_does_not_fit_the_signed_checkpoints(
    stores: Stores, players: list[UUID]
) -> None:
    """Whoever may write to the database alone changes an action, and builds the tree once more over it. He can't sign
    the checkpoints that were kept, so he takes their signatures over."""
    await stores.execute(f"UPDATE action_logs SET points_awarded = 1000 WHERE seq = {SOMEWHERE}")
    notes = await stores.fetch("SELECT * FROM log_checkpoints")
    await stores.execute("TRUNCATE log_leaves, log_nodes, log_checkpoints")
    await seal_all(stores)
    found, _ = await differences(stores)
    assert found == {}  # with the log's key he can; only those who saw a checkpoint know (see tests/cli/test_audit.py)
    await stores.execute("TRUNCATE log_checkpoints")
    for row in notes:
        await stores.execute("INSERT INTO log_checkpoints (size, note) VALUES ($1, $2)", row["size"], row["note"])
    found, _ = await differences(stores)
    assert found
    assert set(found.values()) == {"was signed for another tree: leaves before it were replaced"}


async def test_a_checkpoint_with_another_key_is_named(stores: Stores, players: list[UUID]) -> None:
    forged = LogSigner("scores.example", b"f" * 32)
    (row,) = await stores.fetch("SELECT size, note FROM log_checkpoints ORDER BY size DESC LIMIT 1")
    opened = open_checkpoint(row["note"], SIGNER.verifier)
    assert opened is not None
    await stores.execute(
        "UPDATE log_checkpoints SET note = $2 WHERE size = $1", row["size"], forged.sign(opened.size, opened.root)
    )
    found, _ = await differences(stores)
    assert found == {f"checkpoint {row['size']}": "has no signature of this log"}


async def test_a_tree_that_was_cut_off_is_named(stores: Stores, players: list[UUID]) -> None:
    """The last batch is gone with its hashes: the kept checkpoint is larger than the tree."""
    await stores.execute("DELETE FROM log_nodes WHERE level = 0 AND first = 14")
    await stores.execute("DELETE FROM log_leaves WHERE first = 14")
    found, _ = await differences(stores)
    assert found["checkpoint 21"] == "was signed for 21 leaves, the tree has 14"


async def test_checkpoints_that_were_removed_are_missed(stores: Stores, players: list[UUID]) -> None:
    await stores.execute("TRUNCATE log_checkpoints")
    await stores.execute("UPDATE log_leaves SET sealed_at = now() - interval '1 hour' WHERE first = 0")
    found, _ = await differences(stores)
    assert found == {"log_checkpoints": "has none for the leaves of the last 3600 s"}


def test_hashes_of_leaves_and_of_nodes_are_never_equal() -> None:
    """So an inner node can't be shown as a record."""
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(left + right) != node_hash(left, right)
