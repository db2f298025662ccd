"""The checks of a stranger: honest proofs hold, and each forged one fails at the step that it forges."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain.log_records import salted_hash
from scoreboard.domain.merkle import EMPTY_ROOT, leaf_hash, node_hash
from scoreboard.operations.log_check import Proof, check_growth, check_proof, read_path, read_proof
from scoreboard.security.checkpoints import Checkpoint, LogSigner

SIGNER = LogSigner("scores.example", bytes(32))
SALT = bytes(16)
USER = "00000000-0000-4000-8000-00000000000a"
RECORD = json.dumps(
    {"action": salted_hash(SALT, "action", "level-1"), "kind": "action", "points": 10, "user": USER},
    separators=(",", ":"),
)
OTHER = leaf_hash(b"another record")
ROOT = node_hash(OTHER, leaf_hash(RECORD.encode()))
PROOF = Proof(RECORD, SALT, 1, 2, [OTHER], SIGNER.sign(2, ROOT))


def failed(proof: Proof, user: str = USER, action_id: str = "level-1") -> list[str]:
    return [step.what for step in check_proof(proof, SIGNER.verifier, user, action_id) if not step.holds]


def test_an_honest_proof_holds() -> None:
    assert failed(PROOF) == []
    steps = check_proof(PROOF, None)
    assert all(step.holds for step in steps)
    assert not any("signed" in step.what for step in steps)  # no key, no claim


@pytest.mark.parametrize(
    ("forged", "why"),
    [
        (PROOF._replace(record=RECORD.replace('"points":10', '"points":99')), "is not number 1"),
        (PROOF._replace(leaf_index=0), "is not number 0"),
        (PROOF._replace(leaf_index=-1), "is not number"),
        (PROOF._replace(leaf_index=2), "is not number"),
        (PROOF._replace(path=[]), "is not number"),
        (PROOF._replace(path=[ROOT]), "is not number"),
        (PROOF._replace(size=3), "2 records"),
        (PROOF._replace(salt=bytes(15)), "another action"),
        (PROOF._replace(checkpoint=LogSigner("scores.example", b"f" * 32).sign(2, ROOT)), "is not signed"),
        (PROOF._replace(checkpoint=LogSigner("other.example", bytes(32)).sign(2, ROOT)), "is not signed"),
        (PROOF._replace(checkpoint=PROOF.checkpoint.replace("\n2\n", "\n3\n")), "is not signed"),
        (PROOF._replace(checkpoint=SIGNER.sign(2, OTHER)), "is not number 1"),
        (PROOF._replace(checkpoint=""), "is not signed"),
    ],
)
def test_a_forged_proof_fails(forged: Proof, why: str) -> None:
    assert any(why in what for what in failed(forged))


def test_a_proof_of_another_action_fails() -> None:
    assert failed(PROOF, action_id="level-2") == ["the record is about another action"]
    assert failed(PROOF, user=USER[:-1] + "b") == ["the record is about another user"]


def answer(**changes: object) -> str:
    data: dict[str, object] = {
        "record": RECORD,
        "salt": SALT.hex(),
        "index": 1,
        "size": 2,
        "path": [OTHER.hex()],
        "checkpoint": PROOF.checkpoint,
    }
    return json.dumps({"success": True, "data": data | changes})


def test_an_answer_is_read_with_and_without_its_envelope() -> None:
    assert read_proof(answer()) == PROOF
    assert read_proof(json.dumps(json.loads(answer())["data"])) == PROOF


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "1",
        "{}",
        '{"data": []}',
        "[" * 100_000,
        answer(index="1"),
        answer(index=True),
        answer(size=2.0),
        answer(record=None),
        answer(record="x" * 5000),
        answer(checkpoint=1),
        answer(salt="xyz"),
        answer(path="ab"),
        answer(path=["ab"]),
        answer(path=[None]),
        answer(path=[OTHER.hex()] * 129),
    ],
)
def test_a_text_that_is_no_proof_is_refused(text: str) -> None:
    assert read_proof(text) is None


@given(st.text(max_size=100))
def test_any_text_is_refused_without_an_exception(text: str) -> None:
    assert read_proof(text) is None


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_any_path_is_refused_without_an_exception(path: object) -> None:
    assert read_path({"path": path}) in (None, [])


def test_growth() -> None:
    """A log that grew, one that stands still, one that went back, and one that was rewritten: a split view."""
    one, two = Checkpoint("scores.example", 1, OTHER), Checkpoint("scores.example", 2, ROOT)
    leaf = leaf_hash(RECORD.encode())
    assert check_growth(one, two, [leaf]).holds
    assert check_growth(two, two, []).holds
    assert check_growth(Checkpoint("scores.example", 0, EMPTY_ROOT), two, []).holds
    assert "went back" in check_growth(two, one, None).what
    assert "rewritten" in check_growth(one, two, [OTHER]).what
    assert "rewritten" in check_growth(one, two, None).what
    assert "rewritten" in check_growth(two, two._replace(root=OTHER), []).what
    assert "rewritten" in check_growth(Checkpoint("scores.example", 1, leaf), two, [leaf]).what
    assert "another log" in check_growth(one, two._replace(name="other.example"), [leaf]).what
