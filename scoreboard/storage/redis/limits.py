"""Rate limits and cooldowns of a batch of actions, exact across nodes: by Redis, and by the action log where Redis may
have forgotten.

Called by `storage.commit`, by Redis before anything is recorded, by the log in the transaction that records, with the
users' rows locked. Judges in the specification's order (rate limit, cooldown, validation) by the stores' clock, never
by the node's. asyncio-flavoured.

Redis keeps since when its windows are complete. While that is less than the longest window ago (it was emptied,
restarted, or out of reach), whatever Redis admits must be admitted by the log too.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import asyncpg

from scoreboard.domain.actions import MAX_ACTION_AGE_MS, MAX_ACTION_AHEAD_MS, TOO_OLD_OR_AHEAD, is_timely
from scoreboard.domain.boards import user_id
from scoreboard.domain.errors import Refusal
from scoreboard.domain.outcomes import SubmittedAction, cooling_down, too_many_actions
from scoreboard.storage.connections.bridge import postgres_errors, redis_errors
from scoreboard.storage.connections.generation import Generation
from scoreboard.storage.connections.namespace import SPECIFIED, Namespace
from scoreboard.storage.connections.redis_retention import RedisRetention
from scoreboard.storage.redis.scripts import load_script

WINDOW_MS = 60_000  # specification: per minute, sliding window

# between two questions whether young windows are complete: PostgreSQL looks through an hour of commits
SETTLE_INTERVAL_SECONDS = 1.0

SLOT, COOLDOWN = 1, 2  # what a call newly reserved, as bits

# What the log knows of each (user, action type, actionId) of a batch. The action itself does not count against itself.
# Time is that of the transaction, as in the rows that it records: so no 60 seconds of the log ever hold more actions
# than the limit.
LOGGED_SQL = """
SELECT i.place,
       (extract(epoch FROM now()) * 1000)::bigint AS now,
       w.stamps,
       EXISTS (SELECT FROM action_keys k WHERE k.user_id = i.user_id AND k.action_id = i.action_id) AS is_known,
       (SELECT (extract(epoch FROM max(processed_at)) * 1000)::bigint FROM action_logs
         WHERE user_id = i.user_id AND action_type = i.action_type AND action_id <> i.action_id AND i.cooldown > 0
           AND processed_at > now() - i.cooldown * interval '1 millisecond') AS started
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[]) WITH ORDINALITY AS i(user_id, action_type, action_id, cooldown, place)
CROSS JOIN LATERAL (SELECT array_agg((extract(epoch FROM processed_at) * 1000)::bigint ORDER BY processed_at) AS stamps FROM action_logs
                     WHERE user_id = i.user_id AND action_id <> i.action_id AND processed_at > now() - interval '60 seconds') w
ORDER BY i.place"""


# Whether anybody recorded an action in the time that Redis' windows should know and don't.
RECENT_SQL = """
SELECT EXISTS (SELECT FROM commits WHERE committed_at > clock_timestamp() - $1::bigint * interval '1 millisecond')"""


@dataclass(frozen=True, slots=True)
class LimitDecision:
    """What the limits say of one claim: `refusal` None = admitted. `reserved`: SLOT | COOLDOWN newly taken by this
    call."""

    refusal: Refusal | None
    reserved: int = 0


class Limits:
    """`per_minute` 0 switches the window off, `cooldowns` False the cooldowns; the timestamp and the rule are always
    judged.

    `longest_ms`: the longest window or cooldown that there is.
    """

    __slots__ = (
        "_is_young",
        "_namespace",
        "_release",
        "_reserve",
        "_retention",
        "_seen_reconnects",
        "_settle_at",
        "_since",
        "_trusted_from",
        "cooldowns",
        "longest_ms",
        "per_minute",
    )

    def __init__(
        self,
        client: Any,
        *,
        per_minute: int,
        cooldowns: bool,
        longest_ms: int = WINDOW_MS,
        namespace: Namespace = SPECIFIED,
        retention: RedisRetention | None = None,
    ) -> None:
        """`retention`: whether Redis may have lost keys; None: it never has."""
        self._reserve = client.register_script(load_script("reserve.lua"))
        self._release = client.register_script(load_script("release.lua"))
        self._since = client.register_script(load_script("since.lua"))
        self._namespace, self._retention = namespace, retention or RedisRetention(Generation("redis"))
        self._trusted_from = 0.0  # monotonic seconds
        self._seen_reconnects = 0
        self._settle_at = 0.0  # monotonic seconds
        self._is_young = True  # as far as is known: whether the windows began less than the longest one ago
        self.per_minute, self.cooldowns, self.longest_ms = per_minute, cooldowns, max(longest_ms, WINDOW_MS)

    async def reserve(self, claims: Sequence[SubmittedAction]) -> tuple[list[LimitDecision], bool]:
        """One call for the batch: the judgements, and whether they are complete. If not, the log must be asked about
        what was admitted.

        Raises StorageUnavailable; then slots may be taken, which a retry of the same actionIds finds again.
        """
        args: list[Any] = [self.per_minute, WINDOW_MS, MAX_ACTION_AGE_MS, MAX_ACTION_AHEAD_MS]
        for claim in claims:
            args += (
                claim.action_id,
                claim.timestamp_ms,
                0 if isinstance(claim.points_or_refusal, Refusal) else 1,
                self._pause(claim),
            )
        with redis_errors():
            answer = await self._reserve(
                keys=[self._namespace.limits_since, *(key for claim in claims for key in self._keys(claim))], args=args
            )
        judgements = [
            LimitDecision(_refusal(claim, verdict, wait), reserved)
            for claim, verdict, wait, reserved in zip(claims, answer[2::3], answer[3::3], answer[4::3], strict=True)
        ]
        if self._retention.reconnects != self._seen_reconnects:
            self._seen_reconnects = self._retention.reconnects
            self.distrust()
        self._is_young = answer[0] - answer[1] < self.longest_ms
        return judgements, not (self._is_young or monotonic() < self._trusted_from or self._retention.evicts)

    def distrust(self) -> None:
        """Redis may have forgotten, or missed, what happened until now: the log is asked too until all of that is
        over."""
        self._trusted_from = monotonic() + self.longest_ms / 1000

    async def begin_anew(self) -> None:
        """Redis' windows lack actions that were recorded until now. Tells all nodes. Raises StorageUnavailable."""
        with redis_errors():
            await self._since(keys=[self._namespace.limits_since], args=["reset"])

    async def settle(self, conn: asyncpg.Connection) -> None:
        """Redis' windows count from now on as complete if nobody acted in the time before them, as at a first start.

        Raises StorageUnavailable.
        """
        if not self._is_young or monotonic() < self._settle_at:
            return
        self._settle_at = monotonic() + SETTLE_INTERVAL_SECONDS
        key = self._namespace.limits_since
        with redis_errors():
            since, now = await self._since(keys=[key], args=["look"])
        self._is_young = now - since < self.longest_ms
        if self._is_young:
            with postgres_errors():
                # an age: the stores' clocks may differ
                recent = await conn.fetchval(RECENT_SQL, now - since + self.longest_ms)
            if not recent:
                with redis_errors():
                    await self._since(keys=[key], args=["complete", since, self.longest_ms])

    async def release(self, given_back: Iterable[tuple[SubmittedAction, int]]) -> None:
        """Gives back what `reserve` newly took. Raises StorageUnavailable; then the slots stay until they expire."""
        pairs = [(claim, what) for claim, what in given_back if what]
        if pairs:
            with redis_errors():
                await self._release(
                    keys=[key for claim, _ in pairs for key in self._keys(claim)],
                    args=[value for claim, what in pairs for value in (claim.action_id, what)],
                )

    async def judge_by_log(self, conn: asyncpg.Connection, claims: Sequence[SubmittedAction]) -> list[Refusal | None]:
        """The same from PostgreSQL's action log, by PostgreSQL's clock; exact if the users' rows are locked in the
        transaction.

        Refused actions leave no trace there and so take no slot.
        """
        rows = await conn.fetch(
            LOGGED_SQL,
            [claim.user for claim in claims],
            [claim.action_type for claim in claims],
            [claim.action_id for claim in claims],
            [self._pause(claim) for claim in claims],
        )
        here: dict[Any, list[int]] = {}  # what this batch admits counts against the rest of it
        begun: dict[Any, int] = {}
        refusals = []
        for claim, row in zip(claims, rows, strict=True):
            now, stamps = row["now"], (row["stamps"] or []) + here.get(claim.user, [])
            started = max(row["started"] or 0, begun.get((claim.user, claim.action_type), 0))
            refusal = self._by_log(claim, now, stamps, started)
            if refusal is None and not row["is_known"]:  # a repetition counts already
                here.setdefault(claim.user, []).append(now)
                begun[claim.user, claim.action_type] = now
            refusals.append(refusal)
        return refusals

    def _by_log(self, claim: SubmittedAction, now: int, stamps: Sequence[int], started: int) -> Refusal | None:
        if self.per_minute and len(stamps) >= self.per_minute:
            return too_many_actions(stamps[-self.per_minute] + WINDOW_MS - now)
        if started and started + self._pause(claim) > now:
            return cooling_down(started + self._pause(claim) - now)
        if not is_timely(claim.timestamp_ms, now):
            return TOO_OLD_OR_AHEAD
        return claim.points_or_refusal if isinstance(claim.points_or_refusal, Refusal) else None

    def _pause(self, claim: SubmittedAction) -> int:
        return claim.cooldown_ms if self.cooldowns else 0

    def _keys(self, claim: SubmittedAction) -> tuple[str, str]:
        user = user_id(claim.user)
        return self._namespace.window(user), self._namespace.cooldown(user, claim.action_type)


def _refusal(claim: SubmittedAction, verdict: int, wait: int) -> Refusal | None:
    match verdict:
        case 1:
            return None
        case 2:
            return too_many_actions(int(wait))
        case 3:
            return cooling_down(int(wait))
        case 4:
            return TOO_OLD_OR_AHEAD
        case _:
            assert isinstance(claim.points_or_refusal, Refusal)  # the script was told so
            return claim.points_or_refusal
