"""Evidence: by its hash, of one user, within a day's amount, and gone when nothing needs it."""

from hashlib import sha256

import pytest
import trio

from scoreboard.domain.actions import MAX_EVIDENCE_BYTES
from scoreboard.domain.errors import LimitLayer, Refusal
from scoreboard.domain.outcomes import USER_DELETED
from scoreboard.drivers.stores import Stores
from scoreboard.operations.evidence import EMPTY, NOT_A_DIGEST, TOO_LARGE, WRONG_DIGEST, upload_evidence
from scoreboard.storage.postgres import evidence
from tests.storage.conftest import stores
from tests.storage.seeds import make_users

__all__ = ["stores"]  # the fixture

BLOB = bytes(range(256)) * 1024  # 256 KiB, all there is room for
DIGEST = sha256(BLOB).hexdigest()


async def test_evidence_is_kept_for_its_user(stores: Stores) -> None:
    """Byte for byte, once however often it is sent; nobody else has it."""
    ada, eve = await make_users(stores, 2)
    assert [await upload_evidence(stores, ada, DIGEST, BLOB) for _ in range(2)] == [None, None]
    assert await evidence.read(stores, ada, bytes.fromhex(DIGEST)) == BLOB
    assert await evidence.read(stores, eve, bytes.fromhex(DIGEST)) is None
    assert await upload_evidence(stores, eve, DIGEST, BLOB) is None
    assert await stores.fetchval("SELECT count(*) FROM evidence") == 2


@pytest.mark.parametrize(
    ("digest", "blob", "refusal"),
    [
        (DIGEST, BLOB[:-1], WRONG_DIGEST),
        ("0" * 64, b"a", WRONG_DIGEST),
        (DIGEST.upper(), BLOB, NOT_A_DIGEST),
        (DIGEST[:-1], BLOB, NOT_A_DIGEST),
        (DIGEST + "0", BLOB, NOT_A_DIGEST),
        ("", BLOB, NOT_A_DIGEST),
        (sha256(b"").hexdigest(), b"", EMPTY),
        (sha256(BLOB + b"a").hexdigest(), BLOB + b"a", TOO_LARGE),
    ],
)
async def test_what_is_not_that_blob_is_refused(stores: Stores, digest: str, blob: bytes, refusal: Refusal) -> None:
    """A wrong hash, another spelling of it, nothing, a byte too many: nothing is kept."""
    assert len(BLOB) == MAX_EVIDENCE_BYTES
    (ada,) = await make_users(stores, 1)
    assert await upload_evidence(stores, ada, digest, blob) is refusal
    assert await stores.fetchval("SELECT count(*) FROM evidence") == 0


async def test_a_days_amount_is_exact(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when uploads come at once. What is there already costs nothing, and tomorrow there is room again."""
    monkeypatch.setattr(evidence, "MAX_BYTES_A_DAY", 1000)
    (ada,) = await make_users(stores, 1)
    outcomes: list[Refusal | None] = []

    async def upload(number: int) -> None:
        blob = b"%03d" % number * 100
        outcomes.append(await upload_evidence(stores, ada, sha256(blob).hexdigest(), blob))

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(upload, number)
    refused = [outcome for outcome in outcomes if outcome is not None]
    assert len(refused) == 3
    assert refused[0].layer is LimitLayer.DAILY
    kept = await stores.fetchval("SELECT content FROM evidence LIMIT 1")
    assert await upload_evidence(stores, ada, sha256(kept).hexdigest(), kept) is None
    await stores.execute("UPDATE evidence SET uploaded_at = uploaded_at - interval '1 day'")
    await upload(9)
    assert outcomes[-1] is None


async def test_evidence_that_nothing_needs_is_deleted(stores: Stores) -> None:
    """After two days if no action names it; with its action otherwise; at once with its user."""
    ada, bob = await make_users(stores, 2)
    for user in (ada, bob):
        await upload_evidence(stores, user, DIGEST, BLOB)
    await stores.execute("UPDATE evidence SET uploaded_at = now() - interval '3 days'")
    await stores.execute(
        "INSERT INTO held_actions (user_id, action_id, action_type, points, timestamp_ms, signature, body_sha256, "
        "evidence_sha256, expires_at, undecided, retention_days) "
        "VALUES ($1, 'a', 't', 1, 1, 's', '', decode($2, 'hex'), now(), 'refuse', 1)",
        ada,
        DIGEST,
    )
    await evidence.prune(stores)
    assert [row["user_id"] for row in await stores.fetch("SELECT user_id FROM evidence")] == [ada]
    await stores.execute("DELETE FROM users WHERE id = $1", ada)
    assert await stores.fetchval("SELECT count(*) FROM evidence") == 0
    assert await upload_evidence(stores, ada, DIGEST, BLOB) is USER_DELETED
