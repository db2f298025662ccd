"""Submit an action: the specification's flow from the signature to the queue.

Called by the web with a verified identity and the raw body. Pure checks happen here; the stores' checks (idempotency,
limits, timestamp) happen in the committer's batch, in the specification's order. Never touches a store itself.
"""

from hashlib import sha256

from scoreboard.domain.actions import is_own_action, parse_action
from scoreboard.domain.errors import Code, Refusal
from scoreboard.domain.outcomes import SubmittedAction
from scoreboard.domain.scoring import Rules, award
from scoreboard.operations.action_queue import Pending, Queue
from scoreboard.operations.authenticator import Identity
from scoreboard.security.signatures import matches

INVALID_SIGNATURE = Refusal(
    Code.INVALID_SIGNATURE, "X-Action-Signature is not the HMAC-SHA256 of this body with a live key of this session."
)
TRUSTED_ONLY = Refusal(Code.FORBIDDEN, "Actions of this type are sent by the game's server, not by users.")
NOT_YOURS = Refusal(Code.INVALID_SIGNATURE, "The body's userId is not the token's subject.")


class SubmitAction:
    """`rules` come from the actions file; `queue` is drained by the committers."""

    __slots__ = ("queue", "rules")

    def __init__(self, rules: Rules, queue: Queue) -> None:
        self.rules, self.queue = rules, queue

    def submit(self, identity: Identity, signature: str, body: bytes, request_id: str) -> Pending | Refusal:
        """Checks the action and queues it. Returns the queued action, or a Refusal.

        A queued action can't be withdrawn: it is recorded also when its client has disconnected. A retry of the same
        actionId returns what was recorded.
        """
        if not matches(signature, body, identity.secrets):
            return INVALID_SIGNATURE
        action = parse_action(body)
        if isinstance(action, Refusal):
            return action
        if not is_own_action(action, identity.user):
            return NOT_YOURS
        rule = self.rules.get(action.type)
        if rule is not None and rule.trusted:
            return TRUSTED_ONLY
        submitted = SubmittedAction(
            user=identity.user,
            action_id=action.id,
            action_type=action.type,
            timestamp_ms=action.timestamp_ms,
            metadata=action.metadata_json,
            signature=signature,
            body_sha256=sha256(body).digest(),
            request_id=request_id,
            points_or_refusal=award(action, self.rules),
            cooldown_ms=rule.cooldown * 1000 if rule else 0,
        )
        return self.queue.submit(submitted)
