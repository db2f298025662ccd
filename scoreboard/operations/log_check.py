"""Checks what a server says about its transparency log, as somebody who does not believe the server.

For `scoreboard audit check`. Nothing here sends anything: callers fetch the answers of the routes below `/api/v1/audit`
and hand them in. A check returns its steps; it holds when all of them do. Pure.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from scoreboard.domain.log_records import MAX_RECORD_LENGTH, read_action
from scoreboard.domain.merkle import HASH_BYTES, MAX_PROOF_HASHES, is_consistent, leaf_hash, root_from_inclusion
from scoreboard.security.checkpoints import Checkpoint, VerifierKey, open_checkpoint, read_checkpoint

MAX_ANSWER_BYTES = 1_000_000  # of any answer of these routes; a proof has one or two thousand


class Step(NamedTuple):
    """One thing that was checked."""

    holds: bool
    what: str  # a sentence


class Proof(NamedTuple):
    """The answer of `/api/v1/audit/proof`, read. Nothing of it is checked yet."""

    record: str
    salt: bytes
    leaf_index: int
    size: int
    path: list[bytes]
    checkpoint: str


def read_proof(text: str) -> Proof | None:
    """The answer's JSON, with or without its envelope; None when it is not one."""
    try:
        found = json.loads(text[:MAX_ANSWER_BYTES])
        found = found.get("data", found)
        proof = Proof(
            found["record"],
            bytes.fromhex(found["salt"]),
            found["index"],
            found["size"],
            read_path(found) or [],
            found["checkpoint"],
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    numbers = (proof.leaf_index, proof.size)
    texts = (proof.record, proof.checkpoint)
    if not all(type(number) is int for number in numbers) or not all(isinstance(text, str) for text in texts):
        return None
    return proof if read_path(found) is not None and len(proof.record) <= MAX_RECORD_LENGTH else None


def read_path(data: Mapping[str, Any]) -> list[bytes] | None:
    """The hashes of `path`; None when they are none."""
    steps = data.get("path")
    if not isinstance(steps, list) or len(steps) > MAX_PROOF_HASHES:
        return None
    try:
        path = [bytes.fromhex(step) for step in steps]
    except (ValueError, TypeError):
        return None
    return path if all(len(step) == HASH_BYTES for step in path) else None


def check_proof(proof: Proof, key: VerifierKey | None, user: str = "", action_id: str = "") -> list[Step]:
    """Whether the record is a leaf of a tree that the key signed and, if they are given, is about that action of that
    user. `key` None: the signature is not checked."""
    steps = []
    if user or action_id:
        fields = read_action(proof.record, proof.salt, user, action_id)
        holds = not isinstance(fields, str)
        steps.append(Step(holds, "the record is about this action of this user" if holds else str(fields)))
    note = proof.checkpoint
    signed = read_checkpoint(note) if key is None else open_checkpoint(note, key)
    if key is not None:
        holds = signed is not None
        steps.append(Step(holds, f"the checkpoint {'is' if holds else 'is not'} signed by {key.name}"))
    if signed is None:
        return [*steps, Step(False, "there is no checkpoint to compare with")]
    steps.append(Step(signed.size == proof.size, f"the checkpoint is about {signed.size} records"))
    root = root_from_inclusion(leaf_hash(proof.record.encode()), proof.leaf_index, proof.size, proof.path)
    holds = root == signed.root
    steps.append(
        Step(holds, f"the record {'is' if holds else 'is not'} number {proof.leaf_index} of {proof.size} in this tree")
    )
    return steps


def check_growth(old: Checkpoint, new: Checkpoint, path: list[bytes] | None) -> Step:
    """Whether a later checkpoint continues an earlier one. `path`: the consistency proof; empty for equal sizes."""
    if old.name != new.name:
        return Step(False, f"the log was {old.name}, and is {new.name} now: it is another log")
    if new.size < old.size:
        return Step(
            False,
            f"the log went back: {old.size} records were signed, now there are {new.size}. An older copy of the "
            "database was restored, or records were removed",
        )
    if is_consistent(old.size, new.size, old.root, new.root, path or []):
        return Step(True, f"the {old.size} records that were signed before are the first of {new.size}")
    return Step(
        False, f"the log was rewritten: the {old.size} records that were signed before are not in it as they were"
    )
