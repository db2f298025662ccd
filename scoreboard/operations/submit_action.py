"""Submit an action: the specification's flow from the signature to the queue.

Called by the web with a verified identity and the raw body. Pure checks happen here; the stores' checks (idempotency,
limits, timestamp) happen in the committer's batch, in the specification's order. Never touches a store itself.

Most types need points and limits alone. Those that need more (`Rule.is_checked`) leave `submit` at its end.
"""

from hashlib import sha256
from typing import NamedTuple

import msgspec

from scoreboard.domain.actions import Action, invalid, is_own_action, parse_action
from scoreboard.domain.conditions import Conditions, Hold, StartCondition, Verdict
from scoreboard.domain.errors import Code, Refusal
from scoreboard.domain.outcomes import SubmittedAction
from scoreboard.domain.scoring import Rule, Rules, WebhookRule, award
from scoreboard.operations.action_queue import Pending, Queue
from scoreboard.operations.authenticator import Identity
from scoreboard.operations.held_users import HeldUsers
from scoreboard.operations.webhooks import Webhooks
from scoreboard.security.signatures import matches

RETENTION_DAYS = 30  # of a held action without evidence, after its decision

INVALID_SIGNATURE = Refusal(
    Code.INVALID_SIGNATURE, "X-Action-Signature is not the HMAC-SHA256 of this body with a live key of this session."
)
TRUSTED_ONLY = Refusal(Code.FORBIDDEN, "Actions of this type are sent by the game's server, not by users.")
NOT_YOURS = Refusal(Code.INVALID_SIGNATURE, "The body's userId is not the token's subject.")


START_MISSING = invalid("startId", "is required: POST /api/v1/actions/start gives one")
START_NOT_USED = invalid("startId", "is not for this action type")
EVIDENCE_MISSING = invalid("evidence", "is required: sha256 and size of what you upload to /api/v1/actions/evidence/")
EVIDENCE_NOT_USED = invalid("evidence", "is not for this action type")


class Unasked(NamedTuple):
    """An action about which another server must be asked, before it is queued."""

    action: SubmittedAction
    webhook: WebhookRule


# ---- pure -----------------------------------------------------------------------------------------------------------


def check_proofs(action: Action, rule: Rule) -> Refusal | None:
    """Why an action that names a start or evidence, or none, does not fit its type; None: it does."""
    if (action.start is None) != (rule.started is None):
        return START_NOT_USED if rule.started is None else START_MISSING
    if (action.evidence is None) != (rule.evidence is None):
        return EVIDENCE_NOT_USED if rule.evidence is None else EVIDENCE_MISSING
    return None


def conditions_of(action: Action, rule: Rule, *, is_user_held: bool = False) -> Conditions | None:
    """What the database must compare when the action is recorded; None: nothing. `is_user_held`: the action waits,
    whatever its type says."""
    cap, started, evidence = rule.daily_cap, rule.started, action.evidence
    hold = None
    if rule.is_held or is_user_held:
        hold = Hold(
            rule.hold_days,
            Verdict(rule.undecided),
            rule.evidence.retention if rule.evidence else RETENTION_DAYS,
            evidence.sha256 if evidence else None,
            evidence.size if evidence else 0,
        )
    if not (cap or started or hold):
        return None
    return Conditions(
        daily_points=cap.points if cap else 0,
        daily_count=cap.count if cap else 0,
        start=StartCondition(action.start or "", started.minimum) if started else None,
        hold=hold,
    )


# ---- acting ---------------------------------------------------------------------------------------------------------


class SubmitAction:
    """`rules` come from the actions file; `queue` is drained by the committers. `webhooks` asks the servers that the
    rules name; None where no rule names one. `held_users` are those whose actions wait; None where no policy holds."""

    __slots__ = ("_checked", "_held_users", "_webhooks", "queue", "rules")

    def __init__(
        self, rules: Rules, queue: Queue, webhooks: Webhooks | None = None, held_users: HeldUsers | None = None
    ) -> None:
        self.rules, self.queue, self._webhooks, self._held_users = rules, queue, webhooks, held_users
        self._checked = {name: rule for name, rule in rules.items() if rule.is_checked}

    def submit(self, identity: Identity, signature: str, body: bytes, request_id: str) -> Pending | Unasked | Refusal:
        """Checks the action and queues it. Returns the queued action, or a Refusal. Unasked: `ask` queues it.

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
        is_held = self._held_users is not None and identity.user in self._held_users.ids
        if rule is not None and (action.type in self._checked or action.start or action.evidence or is_held):
            return self._submit_checked(action, rule, submitted, is_held=is_held)
        return self.queue.submit(submitted)

    def _submit_checked(
        self, action: Action, rule: Rule, submitted: SubmittedAction, *, is_held: bool
    ) -> Pending | Unasked | Refusal:
        """The rest for an action that must be proven. What does not fit its type goes to the queue with its refusal, as
        everything that a rule refuses: duplicates and limits are found first."""
        if rule.trusted:
            return TRUSTED_ONLY
        refusal = check_proofs(action, rule)
        submitted = msgspec.structs.replace(
            submitted,
            points_or_refusal=refusal or submitted.points_or_refusal,
            conditions=conditions_of(action, rule, is_user_held=is_held),
        )
        if rule.webhook is not None and not isinstance(submitted.points_or_refusal, Refusal):
            return Unasked(submitted, rule.webhook)
        return self.queue.submit(submitted)

    async def ask(self, unasked: Unasked) -> Pending | Refusal:
        """Asks the other server and queues the action with its points. Returns as `submit`. 503 when there is no clear
        answer: nothing was queued.

        Cancelling before the server's answer queues nothing. Raises StorageUnavailable.
        """
        assert self._webhooks is not None
        points = await self._webhooks.ask(unasked.webhook, unasked.action)
        if isinstance(points, Refusal) and points.code is not Code.INVALID_ACTION:
            return points
        return self.queue.submit(msgspec.structs.replace(unasked.action, points_or_refusal=points))
