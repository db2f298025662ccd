"""Submit actions for users, with a server key: from the body to the outcomes, in order.

1. The body is divided; one that is no list of at most 500 actions is refused as a whole.
2. Each action is decoded. Users that are named by an external id are looked up, all at once.
3. What each action is worth is decided, and all are queued as one group: one transaction.
4. The outcomes of 2 and of the committer are put together.

The limits and cooldowns of users do not apply: they are meant against users, and the key has a limit of its own. All
else is as for a user's own action: idempotency goes first, then time and rule. What proves an action against its user
(a start, evidence, a webhook, a daily cap, holding) is not asked of a server that is trusted.

Tested in tests/web/routes/test_server.py.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from uuid import UUID

from scoreboard.domain.bulk_actions import BulkAction, bulk_points, parse_bulk_action, split_actions
from scoreboard.domain.errors import Code, Refusal
from scoreboard.domain.identities import SERVER
from scoreboard.domain.outcomes import USER_DELETED, Outcome, SubmittedAction
from scoreboard.domain.scoring import Rules
from scoreboard.drivers.stores import Stores
from scoreboard.operations.action_queue import Queue
from scoreboard.operations.server_keys import ServerIdentity
from scoreboard.storage.postgres import identities

NO_SUCH_USER = Refusal(Code.NOT_FOUND, "There is no such user.")


class SubmitBulk:
    """`rules` come from the actions file; `queue` is drained by the committers; `clock` is PostgreSQL's, in Unix
    seconds."""

    __slots__ = ("_clock", "_queue", "_rules", "_stores")

    def __init__(self, rules: Rules, queue: Queue, stores: Stores, clock: Callable[[], float]) -> None:
        self._rules, self._queue, self._stores, self._clock = rules, queue, stores, clock

    async def submit(self, identity: ServerIdentity, body: bytes, request_id: str) -> Sequence[Outcome] | Refusal:
        """The outcome of each action in the body, in order. A Refusal: nothing was queued.

        Cancelling leaves queued actions queued: they are recorded, and a retry of the same actionIds returns what was.
        Raises StorageUnavailable before anything is queued.
        """
        texts = split_actions(body)
        if isinstance(texts, Refusal):
            return texts
        parsed = [parse_bulk_action(text) for text in texts]
        users = await self._find_users(parsed)
        outcomes: list[Outcome | None] = [one if isinstance(one, Refusal) else None for one in parsed]
        places, actions, now_ms = [], [], round(self._clock() * 1000)
        for place, one in enumerate(parsed):
            if isinstance(one, Refusal):
                continue
            user = one.user or users.get(one.external_id or "")
            if user is None:
                outcomes[place] = NO_SUCH_USER
            else:
                places.append(place)
                actions.append(self._submitted(one, user, identity.actor, request_id, now_ms))
        group = self._queue.submit_group(actions)
        if isinstance(group, Refusal):
            return group
        for place, outcome in zip(places, await group.wait(), strict=True):
            outcomes[place] = NO_SUCH_USER if outcome is USER_DELETED else outcome
        return [outcome for outcome in outcomes if outcome is not None]  # each has one by now

    async def _find_users(self, parsed: Iterable[BulkAction | Refusal]) -> Mapping[str, UUID]:
        external = {one.external_id for one in parsed if isinstance(one, BulkAction) and one.external_id is not None}
        return await identities.find_many(self._stores, SERVER, external) if external else {}

    def _submitted(self, one: BulkAction, user: UUID, signature: str, request_id: str, now_ms: int) -> SubmittedAction:
        action = one.action
        return SubmittedAction(
            user=user,
            action_id=action.id,
            action_type=action.type,
            timestamp_ms=action.timestamp_ms,
            metadata=action.metadata_json,
            signature=signature,
            body_sha256=one.body_sha256,
            request_id=request_id,
            points_or_refusal=bulk_points(one, self._rules, now_ms),
            cooldown_ms=0,
            is_limited=False,
        )
