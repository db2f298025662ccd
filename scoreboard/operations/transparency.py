"""What anybody may ask of the transparency log: checkpoints, proofs, leaves.

Called by the web. Answers come from PostgreSQL alone, and are the same on every node. Whoever knows a user's id and an
action's id gets the proof that this action is in the log, with the salt that the check needs; the points in it are
those that the board shows. Nobody is told what an action's metadata were.

Tested in tests/web/routes/test_audit.py.
"""

import re
from typing import NamedTuple
from uuid import UUID

from scoreboard.domain.actions import MAX_ACTION_ID_LENGTH
from scoreboard.domain.errors import Code, Refusal, invalid_request
from scoreboard.drivers.stores import Stores
from scoreboard.security.checkpoints import LogSigner
from scoreboard.storage import log_proofs
from scoreboard.storage.log_proofs import RecordChanged

MAX_LEAVES = 1000  # of one answer, some 90 kB
SEALED_SECONDS = 5  # what clients are told: a record is sealed within this time

NO_KEY = Refusal(Code.NOT_FOUND, "This server signs no log: it has no key for it.")
NOT_SEALED = Refusal(
    Code.NOT_FOUND, f"The log does not have this action. A new one is in it within {SEALED_SECONDS} s."
)
CHANGED = Refusal(Code.NOT_FOUND, "The stored action is not the one in the log. There is no proof for it.")

_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII).fullmatch
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII).fullmatch


class ActionProof(NamedTuple):
    """All that a stranger needs to check that an action is in the log, besides the log's public key."""

    record: str
    salt: bytes
    leaf_index: int
    size: int
    path: list[bytes]
    checkpoint: str


class TransparencyLog:
    """The log of one installation, as one node reads it. Every method that awaits may raise StorageUnavailable;
    cancelling is safe."""

    __slots__ = ("_signer", "_stores")

    def __init__(self, stores: Stores, signer: LogSigner | None) -> None:
        """`signer` None: the node has no key, and proves nothing."""
        self._stores, self._signer = stores, signer

    @property
    def key(self) -> str | Refusal:
        """The public key, as a `vkey`."""
        return NO_KEY if self._signer is None else str(self._signer.verifier)

    async def checkpoint(self) -> str | Refusal:
        """The signed note for the present tree."""
        if self._signer is None:
            return NO_KEY
        head = await self._stores.in_transaction(log_proofs.tree_head_aio)
        return self._signer.sign(head.size, head.root)

    async def proof(self, user: str, action_id: str) -> ActionProof | Refusal:
        """The proof that this action of this user is in the present tree."""
        if self._signer is None:
            return NO_KEY
        if not _UUID(user):
            return invalid_request("userId", "must be the id of a user")
        if not 0 < len(action_id) <= MAX_ACTION_ID_LENGTH or "\0" in action_id:
            return invalid_request("actionId", f"must have 1 to {MAX_ACTION_ID_LENGTH} characters")
        found = await self._stores.in_transaction(log_proofs.inclusion_aio, UUID(user), action_id)
        if found is None:
            return NOT_SEALED
        if isinstance(found, RecordChanged):
            return CHANGED
        note = self._signer.sign(found.head.size, found.head.root)
        return ActionProof(found.record, found.salt, found.leaf_index, found.head.size, found.path, note)

    async def consistency(self, first: str, second: str) -> list[bytes] | Refusal:
        """The proof that the tree of `first` leaves is the beginning of the one of `second` leaves."""
        sizes = _read_range(first, second)
        if isinstance(sizes, Refusal):
            return sizes
        if sizes[0] == 0:
            return invalid_request("from", "must be at least 1: every tree begins with the empty one")
        path = await self._stores.in_transaction(log_proofs.consistency_aio, *sizes)
        return invalid_request("to", "is larger than the log") if path is None else path

    async def leaves(self, start: str, end: str) -> tuple[int, list[bytes]] | Refusal:
        """The hashes of the leaves from `start` up to, without, `end`, as many as there are; and `start`."""
        indexes = _read_range(start, end)
        if isinstance(indexes, Refusal):
            return indexes
        if indexes[1] - indexes[0] > MAX_LEAVES:
            return invalid_request("to", f"must be at most {MAX_LEAVES} above from")
        return indexes[0], await self._stores.in_transaction(log_proofs.leaves_aio, *indexes)


def _read_range(first: str, second: str) -> tuple[int, int] | Refusal:
    for name, text in (("from", first), ("to", second)):
        if not _NUMBER(text):
            return invalid_request(name, "must be a whole number, from 0 on")
    if int(first) > int(second):
        return invalid_request("from", "must not be above to")
    return int(first), int(second)
