"""Decides about actions that wait: approve or refuse, by a moderator or when their time is over.

An approval goes to the queue like any action and is recorded by a committer, in one transaction with the change of the
held action and its audit event. So it counts exactly once, whoever else decides at the same time, and boards and
viewers learn of it as of any action. A refusal is a transaction of its own. Whoever comes second is told so.
"""

from contextlib import suppress
from uuid import UUID

import structlog

from scoreboard.domain.audit import SYSTEM
from scoreboard.domain.conditions import Approval, HeldStatus, Verdict
from scoreboard.domain.errors import NOT_FOUND, Code, Refusal, StorageUnavailable, invalid_request
from scoreboard.domain.outcomes import Duplicate, Held, Recorded, out_of_service
from scoreboard.drivers.stores import Stores
from scoreboard.operations.action_queue import Queue
from scoreboard.storage.bus import Bus
from scoreboard.storage.postgres import held_actions
from scoreboard.storage.postgres.conditions import ALREADY_DECIDED
from scoreboard.storage.postgres.held_actions import HeldRow

MAX_REASON_LENGTH = 500  # characters; the user reads it
APPROVAL_TRIES = 3  # a batch in which the user's own retry came first leaves the approval undone
MAX_EXPIRED_AT_ONCE = 100  # the rest with the next run
NOT_DECIDED_IN_TIME = "Nobody decided in time."
NO_EVIDENCE = "The evidence was not uploaded in time."

EVIDENCE_NOT_UPLOADED = Refusal(Code.CONFLICT, "The evidence of this action was not uploaded yet.")
OWN_CASE = Refusal(Code.FORBIDDEN, "Nobody decides about an action of their own.")
NOT_APPROVED = out_of_service("The action could not be approved now. Try again.")

log = structlog.get_logger()


class HeldActions:
    """One for a node. `queue` must be drained by committers; `bus` tells the user's connections of a refusal."""

    __slots__ = ("_bus", "_queue", "_stores")

    def __init__(self, stores: Stores, queue: Queue, bus: Bus) -> None:
        self._stores, self._queue, self._bus = stores, queue, bus

    async def decide(
        self, actor: str, user: UUID, action_id: str, verdict: Verdict, reason: str, *, request_id: str = ""
    ) -> HeldRow | Refusal:
        """Approves or refuses. Returns the action with its new state.

        `actor`: a user's id or another of domain.audit. `reason`: 1 to 500 printable characters, which the user reads.
        A Refusal: NOT_FOUND, CONFLICT when it was decided already or lacks its evidence, FORBIDDEN for an own action
        and to approve a banned user's, or 503. After a 503 and after a cancellation it may be decided or not: another
        try tells. Raises StorageUnavailable.
        """
        reason = reason.strip()
        if not (1 <= len(reason) <= MAX_REASON_LENGTH and reason.isprintable()):
            return invalid_request("reason", f"must have 1 to {MAX_REASON_LENGTH} characters that can be printed")
        if actor == str(user):
            return OWN_CASE
        row = await held_actions.find(self._stores, user, action_id)
        if row is None:
            return NOT_FOUND
        if row.status is not HeldStatus.HELD:
            return ALREADY_DECIDED
        if verdict is Verdict.APPROVE and row.lacks_evidence:
            return EVIDENCE_NOT_UPLOADED
        refusal = (
            await self._approve(row, Approval(actor, reason), request_id)
            if verdict is Verdict.APPROVE
            else await self._refuse(row, actor, reason)
        )
        return refusal or await held_actions.find(self._stores, user, action_id) or NOT_FOUND

    async def decide_expired(self) -> int:
        """Decides about what nobody decided about in time, as its type says. Returns how many there were.

        Any number of nodes may do so at once. Raises StorageUnavailable.
        """
        decided = 0
        for row in await held_actions.expired(self._stores, MAX_EXPIRED_AT_ONCE):
            verdict, reason = row.undecided, NOT_DECIDED_IN_TIME
            if verdict is Verdict.APPROVE and row.lacks_evidence:
                verdict, reason = Verdict.REFUSE, NO_EVIDENCE
            outcome = await self.decide(SYSTEM, row.user, row.action_id, verdict, reason)
            if isinstance(outcome, Refusal) and outcome.code is Code.FORBIDDEN:  # the user is banned now
                outcome = await self.decide(SYSTEM, row.user, row.action_id, Verdict.REFUSE, reason)
            decided += not isinstance(outcome, Refusal)
        return decided

    async def _approve(self, row: HeldRow, approval: Approval, request_id: str) -> Refusal | None:
        for _ in range(APPROVAL_TRIES):
            action = await held_actions.approval_of(self._stores, row.user, row.action_id, approval, request_id)
            if action is None:
                return ALREADY_DECIDED
            queued = self._queue.submit_group([action])
            if isinstance(queued, Refusal):
                return queued
            (outcome,) = await queued.wait()
            match outcome:
                case Recorded():
                    return None
                case Duplicate():  # another approval in the same batch
                    return ALREADY_DECIDED
                case Refusal():
                    return outcome
                case Held():
                    pass  # the user's own retry was first in the same batch, and the approval was not looked at
        return NOT_APPROVED

    async def _refuse(self, row: HeldRow, actor: str, reason: str) -> Refusal | None:
        if not await held_actions.refuse(self._stores, row.user, row.action_id, actor, reason):
            return ALREADY_DECIDED
        with suppress(StorageUnavailable):  # a hint: the user's own list has it
            await self._bus.publish_rejected(row.user, row.action_id, row.action_type, reason)
        return None
