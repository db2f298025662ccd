"""The sealer and the proofs: every record becomes one leaf, once, in the order of its number, whoever seals and is
stopped; and what a record says."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from uuid import UUID, uuid4

import asyncpg
import pytest
import trio

from scoreboard.domain.audit import OPERATOR, AuditEvent, AuditKind
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.domain.log_records import leaf_salt, read_action, salted_hash
from scoreboard.domain.merkle import EMPTY_ROOT, is_consistent, leaf_hash, root_from_inclusion
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.stores import Stores
from scoreboard.security.checkpoints import LogSigner, open_checkpoint
from scoreboard.storage import log_proofs, sealing
from scoreboard.storage.log_proofs import InclusionProof, RecordChanged
from scoreboard.storage.postgres import audit_events, log_leaves, log_tree, users
from scoreboard.storage.sealing import Sealing
from tests.storage.seeds import NO_LOCK_TIMEOUT_SQL, Scribe, claim, connection, make_users

WAITS_SQL = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"
SIGNER = LogSigner("scores.example", bytes(32))


@asynccontextmanager
async def sealer(stores: Stores) -> AsyncIterator[Sealing]:
    seal = Sealing(stores, SIGNER.sign)
    try:
        yield seal
    finally:
        seal.close()


async def seal_all(stores: Stores) -> int:
    """Seals until nothing is left; returns the size of the tree."""
    async with sealer(stores) as seal:
        with trio.fail_after(20):
            while (done := await run_in_asyncio(seal.step_aio)).leaves:
                pass
    return done.size


async def record(stores: Stores, players: Sequence[UUID], each: int = 1) -> list[tuple[UUID, str]]:
    """Actions in the ledger; returns whose, and their ids."""
    claims = [claim(user, metadata='{"note": "Grüße \\" \\u0001", "n": 1.50}') for _ in range(each) for user in players]
    async with connection(stores) as conn:
        await Scribe(conn, uuid4().int >> 66).record(claims)
    return [(action.user, action.action_id) for action in claims]


async def proof(stores: Stores, user: UUID, action_id: str) -> InclusionProof:
    found = await stores.in_transaction(log_proofs.inclusion_aio, user, action_id)
    assert isinstance(found, InclusionProof)
    return found


async def test_an_action_is_proven_to_be_in_the_tree(stores: Stores) -> None:
    """A stranger needs the answer alone, the user's id and the action's id."""
    actions = await record(stores, await make_users(stores, 5), each=7)
    assert await stores.in_transaction(log_proofs.inclusion_aio, *actions[0]) is None
    assert await seal_all(stores) == 35
    for user, action_id in actions:
        found = await proof(stores, user, action_id)
        leaf = leaf_hash(found.record.encode())
        assert root_from_inclusion(leaf, found.leaf_index, 35, found.path) == found.head.root
        fields = read_action(found.record, found.salt, str(user), action_id)
        assert isinstance(fields, dict)
        assert (fields["points"], fields["type"]) == (10, "task_finish")
    assert await stores.in_transaction(log_proofs.inclusion_aio, actions[0][0], "another") is None
    assert await stores.in_transaction(log_proofs.inclusion_aio, uuid4(), actions[0][1]) is None


async def test_a_record_is_canonical_json_without_what_its_user_wrote(stores: Stores) -> None:
    """The text that PostgreSQL makes is the one that Python makes from the row."""
    (user,) = await make_users(stores, 1)
    (_, action_id), *_ = await record(stores, [user])
    await seal_all(stores)
    found = await proof(stores, user, action_id)
    row = await stores.fetchrow("SELECT *, metadata::text AS said FROM action_logs")
    secret = await stores.fetchval("SELECT secret FROM log_secrets WHERE user_id = $1", user)
    assert row is not None
    assert found.salt == leaf_salt(secret, row["seq"])
    fields = {
        "action": salted_hash(found.salt, "action", action_id),
        "kind": "action",
        "metadata": salted_hash(found.salt, "metadata", row["said"]),
        "newScore": 10,
        "order": row["seq"],
        "points": 10,
        "signature": sha256(row["signature"].encode()).hexdigest(),
        "time": round(row["processed_at"].timestamp() * 1000),
        "type": "task_finish",
        "user": str(user),
    }
    assert found.record == json.dumps(fields, separators=(",", ":"), sort_keys=True)
    assert action_id not in found.record


async def test_events_are_leaves_between_the_actions(stores: Stores) -> None:
    (user,) = await make_users(stores, 1)
    await record(stores, [user])
    event = AuditEvent(AuditKind.USER_ERASED, OPERATOR, user, {"reason": 'a "quoted" one'})
    await stores.in_transaction(audit_events.add_aio, [event, event._replace(subject=None)])
    await record(stores, [user])
    assert await seal_all(stores) == 4
    rows = await stores.fetch(log_leaves.RECORDS_SQL, -1, 1 << 62)
    assert [json.loads(row["record"])["kind"] for row in rows] == ["action", "event", "event", "action"]
    stored, secret = (
        await stores.fetchrow("SELECT *, details::text AS said FROM audit_events ORDER BY id LIMIT 1"),
        await stores.fetchval("SELECT secret FROM log_event_secret"),
    )
    assert stored is not None
    fields = {
        "actor": "operator",
        "details": salted_hash(leaf_salt(secret, stored["id"]), "details", stored["said"]),
        "event": "user_erased",
        "kind": "event",
        "order": stored["id"],
        "subject": str(user),
        "time": round(stored["created_at"].timestamp() * 1000),
    }
    assert rows[1]["record"] == json.dumps(fields, separators=(",", ":"), sort_keys=True)
    assert json.loads(rows[2]["record"])["subject"] is None
    leaves = await stores.in_transaction(log_proofs.leaves_aio, 0, 4)
    assert leaves == [row["leaf"] for row in rows] == [leaf_hash(row["record"].encode()) for row in rows]


async def test_every_earlier_tree_is_the_beginning_of_the_present_one(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "BATCH_LEAVES", 7)
    players = await make_users(stores, 5)
    heads = []
    for _ in range(4):
        await record(stores, players, each=3)
        await seal_all(stores)
        heads.append(await stores.in_transaction(log_proofs.tree_head_aio))
    assert [head.size for head in heads] == [15, 30, 45, 60]
    for number, first in enumerate(heads):
        for second in heads[number:]:
            path = await stores.in_transaction(log_proofs.consistency_aio, first.size, second.size)
            assert path is not None
            assert is_consistent(first.size, second.size, first.root, second.root, path)
    assert await stores.in_transaction(log_proofs.consistency_aio, 1, 61) is None
    assert await stores.in_transaction(log_proofs.leaves_aio, 58, 10**12) == (
        await stores.in_transaction(log_proofs.leaves_aio, 58, 60)
    )


async def test_an_empty_tree_has_the_empty_root(stores: Stores) -> None:
    assert await seal_all(stores) == 0
    assert await stores.in_transaction(log_proofs.tree_head_aio) == (0, EMPTY_ROOT)
    assert await stores.in_transaction(log_proofs.leaves_aio, 0, 10) == []


async def test_what_is_not_decided_is_not_sealed(stores: Stores) -> None:
    """A transaction has a lower number and commits later: its leaf is not left out."""
    (user,) = await make_users(stores, 1)
    event = AuditEvent(AuditKind.USER_ERASED, OPERATOR, user)
    async with connection(stores) as slow, sealer(stores) as seal:
        await run_in_asyncio(slow.execute, "BEGIN")
        await run_in_asyncio(audit_events.add_aio, slow, [event])
        await record(stores, [user])
        for _ in range(3):
            done = await run_in_asyncio(seal.step_aio)
            assert done.leaves == 0
        assert done.waiting > 0
        await run_in_asyncio(slow.execute, "COMMIT")
    assert await seal_all(stores) == 2
    orders = await stores.fetchval("SELECT orders FROM log_leaves")
    assert orders == sorted(orders)


async def test_a_locked_user_keeps_no_writer_of_others_waiting(stores: Stores) -> None:
    """The secrets of new users lock their rows: a step that meets a row of another session gives up at once, and a
    later one seals both."""
    await stores.execute(NO_LOCK_TIMEOUT_SQL)
    players = await make_users(stores, 2)
    await record(stores, players)
    async with connection(stores) as holder, sealer(stores) as seal:
        await run_in_asyncio(holder.execute, "BEGIN")
        await run_in_asyncio(holder.execute, "SELECT FROM users WHERE id = $1 FOR UPDATE", players[0])
        with pytest.raises(StorageUnavailable, match="lock timeout"):
            await run_in_asyncio(seal.step_aio)
        await run_in_asyncio(holder.execute, "COMMIT")
    assert await seal_all(stores) == 2


async def test_two_sealers_at_once_seal_every_record_once(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "BATCH_LEAVES", 5)
    actions = await record(stores, await make_users(stores, 10), each=10)

    async def run() -> None:
        async with sealer(stores) as seal:
            while (await run_in_asyncio(seal.step_aio)).waiting:
                pass

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(run)
    for user, action_id in actions:
        found = await proof(stores, user, action_id)
        assert found.head.size == 100
        leaf = leaf_hash(found.record.encode())
        assert root_from_inclusion(leaf, found.leaf_index, 100, found.path) == found.head.root


async def test_two_sealers_without_the_lock_fail_rather_than_fork_the_tree(stores: Stores) -> None:
    """The second one adds its leaves at a place that is taken."""
    await record(stores, await make_users(stores, 3))
    async with connection(stores) as one, connection(stores) as two:
        for conn in (one, two):
            await run_in_asyncio(conn.execute, "SET lock_timeout = 0; BEGIN")
        below = 1 << 62
        assert await run_in_asyncio(sealing.seal_aio, one, below) == 3

        async def second() -> None:
            with pytest.raises(asyncpg.UniqueViolationError):
                await run_in_asyncio(sealing.seal_aio, two, below)

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(second)
                while not await stores.fetchval(WAITS_SQL):
                    await trio.lowlevel.checkpoint()
                await run_in_asyncio(one.execute, "COMMIT")
    assert await stores.fetchval("SELECT count(*) FROM log_leaves") == 1


async def kill_aio(conn: asyncpg.Connection, *_: object) -> None:
    """Ends the connection's server process, as a crash does."""
    await conn.execute("SELECT pg_terminate_backend(pg_backend_pid())")


async def add_half_aio(conn: asyncpg.Connection, size: int, orders: list[int], subjects: list[UUID], _: object) -> None:
    await conn.execute(log_tree.ADD_LEAVES_SQL, size, orders[0], orders, subjects)
    await kill_aio(conn)


@pytest.mark.parametrize(
    ("module", "name", "replacement"),
    [
        (sealing, "seal_aio", kill_aio),  # with the lock
        (log_tree, "hashes_aio", kill_aio),  # with new secrets
        (log_tree, "add_aio", add_half_aio),  # with leaves, without nodes
        (sealing, "keep_checkpoint_aio", kill_aio),  # with leaves and nodes
        (
            log_tree,
            "ADD_CHECKPOINT_SQL",
            "SELECT 1 / ($1::bigint - $1::bigint), $2::text",
        ),
    ],
)
async def test_a_sealer_that_is_killed_at_any_step_leaves_no_half_batch(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, module: object, name: str, replacement: object
) -> None:
    """The next one begins from the tree as it was."""
    actions = await record(stores, await make_users(stores, 3), each=2)
    with monkeypatch.context() as patched:
        patched.setattr(module, name, replacement)
        async with sealer(stores) as seal:
            with pytest.raises((StorageUnavailable, asyncpg.DataError)):
                await run_in_asyncio(seal.step_aio)
    for table in ("log_leaves", "log_nodes", "log_checkpoints", "log_secrets"):
        assert await stores.fetchval(f"SELECT count(*) FROM {table}") == 0
    assert await seal_all(stores) == 6
    for user, action_id in actions:
        assert (await proof(stores, user, action_id)).head.size == 6


async def test_a_checkpoint_is_kept_once_a_minute_and_opens_with_the_key(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    players = await make_users(stores, 2)
    await record(stores, players)
    await seal_all(stores)
    await record(stores, players)
    await seal_all(stores)
    (kept,) = await stores.fetch("SELECT size, note FROM log_checkpoints")
    opened = open_checkpoint(kept["note"], SIGNER.verifier)
    assert opened is not None
    assert (kept["size"], opened.size) == (2, 2)
    monkeypatch.setattr(sealing, "CHECKPOINT_SECONDS", 0)
    await seal_all(stores)  # nothing new, but a checkpoint is due
    await seal_all(stores)
    head = await stores.in_transaction(log_proofs.tree_head_aio)
    newer = await stores.fetch("SELECT note FROM log_checkpoints WHERE size > 2")
    assert [open_checkpoint(row["note"], SIGNER.verifier) for row in newer] == [("scores.example", 4, head.root)]


async def test_without_a_key_the_tree_grows_and_no_checkpoint_is_kept(stores: Stores) -> None:
    await record(stores, await make_users(stores, 1))
    seal = Sealing(stores, None)
    assert (await run_in_asyncio(seal.step_aio)).size == 1
    seal.close()
    assert await stores.fetchval("SELECT count(*) FROM log_checkpoints") == 0


async def test_a_changed_action_has_no_proof(stores: Stores) -> None:
    ((user, action_id),) = await record(stores, await make_users(stores, 1))
    await seal_all(stores)
    await stores.execute("UPDATE action_logs SET points_awarded = 1000")
    assert isinstance(await stores.in_transaction(log_proofs.inclusion_aio, user, action_id), RecordChanged)


async def test_an_erased_user_leaves_leaves_that_tell_nothing(stores: Stores) -> None:
    """His secrets are gone, the tree is as before, and the erasure is a leaf."""
    actions = await record(stores, await make_users(stores, 2))
    await seal_all(stores)
    before = await stores.in_transaction(log_proofs.tree_head_aio)
    (erased, _), (other, other_action) = actions
    assert await users.delete(stores, erased, OPERATOR)
    assert await stores.fetchval("SELECT count(*) FROM log_secrets WHERE user_id = $1", erased) == 0
    assert await stores.in_transaction(log_proofs.inclusion_aio, *actions[0]) is None
    assert await seal_all(stores) == 3
    after = await stores.in_transaction(log_proofs.tree_head_aio)
    path = await stores.in_transaction(log_proofs.consistency_aio, 2, 3)
    assert path is not None
    assert is_consistent(2, 3, before.root, after.root, path)
    assert (await proof(stores, other, other_action)).head == after


async def test_a_user_who_is_erased_before_the_sealer_comes_leaves_the_erasure_alone(stores: Stores) -> None:
    ((user, _),) = await record(stores, await make_users(stores, 1))
    await users.delete(stores, user, OPERATOR)
    assert await seal_all(stores) == 1
    assert await stores.fetchval("SELECT subjects FROM log_leaves") == [user]


async def test_a_late_row_by_hand_never_enters_the_tree(stores: Stores) -> None:
    """Somebody inserts a row between two that are sealed: the log goes on behind them."""
    (user,) = await make_users(stores, 1)
    await record(stores, [user], each=2)
    await seal_all(stores)
    await stores.execute(
        "INSERT INTO action_logs (user_id, action_id, action_type, points_awarded, new_score, seq, signature) "
        "SELECT user_id, 'forged', action_type, 1000, 1020, seq - 1, signature FROM action_logs ORDER BY seq LIMIT 1"
    )
    await record(stores, [user])
    assert await seal_all(stores) == 3


async def test_an_old_log_is_sealed_in_batches(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows that a version without the tree has written."""
    monkeypatch.setattr(sealing, "BATCH_LEAVES", 16)
    await record(stores, await make_users(stores, 10), each=10)
    async with sealer(stores) as seal:
        sizes = [(await run_in_asyncio(seal.step_aio)).size for _ in range(7)]
    assert sizes == [16, 32, 48, 64, 80, 96, 100]
