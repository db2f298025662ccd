"""Rate limits and cooldowns of a batch of actions, exact across nodes: by Redis, and by the action log where Redis may
have lost entries.

Called by `storage.commit`. Redis decides before anything is recorded. The action log decides in the transaction that
records, with the users' rows locked. Both check in the specification's order (rate limit, cooldown, validation) and by
the store's clock, never by the node's. Coroutines run in asyncio.

Redis stores the time since which its windows are complete. While that is less than the longest window ago (Redis was
emptied, restarted, or out of reach), an action must be admitted by both.
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
from scoreboard.drivers.bridge import postgres_errors, redis_errors
from scoreboard.drivers.generation import Generation
from scoreboard.drivers.namespace import SPECIFIED, Namespace
from scoreboard.drivers.redis_retention import RedisRetention
from scoreboard.storage.redis.scripts import load_script

WINDOW_MS = 60_000  # specification: per minute, sliding window

# between two checks whether young windows are complete: each makes PostgreSQL scan an hour of commits
CONFIRM_INTERVAL_SECONDS = 1.0

SLOT, COOLDOWN = 1, 2  # what a call newly reserved, as bits

# What the log has for each (user, action type, actionId) of a batch. An action does not count against itself. The time
# is the transaction's, as in the rows that it records. So the log never holds more actions in 60 seconds than the
# limit. Actions that server keys submitted do not count: Redis' windows do not have them either. Those that wait for a
# decision count when they were sent, not when they were approved.
LOGGED_SQL = """
SELECT i.place,
       (extract(epoch FROM now()) * 1000)::bigint AS now,
       w.stamps,
       EXISTS (SELECT FROM action_keys k WHERE k.user_id = i.user_id AND k.action_id = i.action_id) AS is_known,
       CASE WHEN i.cooldown > 0 THEN c.started END AS started
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[])
    WITH ORDINALITY AS i(user_id, action_type, action_id, cooldown, place)
CROSS JOIN LATERAL (
    SELECT (extract(epoch FROM max(at)) * 1000)::bigint AS started FROM (
        SELECT processed_at AS at, action_id FROM action_logs
        WHERE user_id = i.user_id AND action_type = i.action_type AND signature NOT LIKE 'server-key:%'
              AND processed_at > now() - i.cooldown * interval '1 millisecond'
        UNION ALL SELECT held_at, action_id FROM held_actions
        WHERE user_id = i.user_id AND action_type = i.action_type
              AND held_at > now() - i.cooldown * interval '1 millisecond'
    ) both_kinds WHERE action_id <> i.action_id
) c
CROSS JOIN LATERAL (
    SELECT array_agg((extract(epoch FROM at) * 1000)::bigint ORDER BY at) AS stamps FROM (
        SELECT processed_at AS at, action_id FROM action_logs l
        WHERE user_id = i.user_id AND processed_at > now() - interval '60 seconds' AND signature NOT LIKE 'server-key:%'
              AND NOT EXISTS (SELECT FROM held_actions h WHERE h.user_id = l.user_id AND h.action_id = l.action_id)
        UNION ALL SELECT held_at, action_id FROM held_actions
        WHERE user_id = i.user_id AND held_at > now() - interval '60 seconds'
    ) both_kinds WHERE action_id <> i.action_id
) w
ORDER BY i.place"""


# Whether an action was recorded, or held, in the time that Redis' windows should cover and don't.
RECENT_SQL = """
SELECT EXISTS (SELECT FROM commits WHERE committed_at > clock_timestamp() - $1::bigint * interval '1 millisecond')
    OR EXISTS (SELECT FROM held_actions WHERE held_at > clock_timestamp() - $1::bigint * interval '1 millisecond')"""


@dataclass(frozen=True, slots=True)
class LimitDecision:
    """The decision of the limits on one action; `refusal` None: admitted. `reserved`: what this call newly reserved,
    the bits SLOT and COOLDOWN. `left`: further actions that the user's window has room for; None: not known, or no
    limit."""

    refusal: Refusal | None
    reserved: int = 0
    left: int | None = None


class UserLimits:
    """The limits of all users. `per_minute`: actions a user in any 60 seconds; 0: no limit. `cooldowns` False: no
    cooldowns. The timestamp and the action type's rule are always checked.

    `max_window_ms`: the longest window or cooldown in use.
    """

    __slots__ = (
        "_confirm_at",
        "_is_young",
        "_namespace",
        "_release",
        "_reserve",
        "_retention",
        "_seen_reconnects",
        "_since",
        "_trusted_from",
        "cooldowns",
        "max_window_ms",
        "per_minute",
    )

    def __init__(
        self,
        client: Any,
        *,
        per_minute: int,
        cooldowns: bool,
        max_window_ms: int = WINDOW_MS,
        namespace: Namespace = SPECIFIED,
        retention: RedisRetention | None = None,
    ) -> None:
        """`retention`: whether Redis may have lost keys; None: it never does."""
        self._reserve = client.register_script(load_script("reserve.lua"))
        self._release = client.register_script(load_script("release.lua"))
        self._since = client.register_script(load_script("since.lua"))
        self._namespace, self._retention = namespace, retention or RedisRetention(Generation("redis"))
        self._trusted_from = 0.0  # monotonic seconds
        self._seen_reconnects = 0
        self._confirm_at = 0.0  # monotonic seconds
        self._is_young = True  # whether the windows began less than the longest one ago, as last read
        self.per_minute, self.cooldowns, self.max_window_ms = per_minute, cooldowns, max(max_window_ms, WINDOW_MS)

    async def reserve_aio(self, actions: Sequence[SubmittedAction]) -> tuple[list[LimitDecision], bool]:
        """Decides on the batch in one call. Returns the decisions, and whether they are complete. If not, the log must
        decide on the admitted actions too.

        Raises StorageUnavailable. Then slots may be reserved, as after a cancellation; a retry of the same actionIds
        uses the same slots.
        """
        args: list[Any] = [self.per_minute, WINDOW_MS, MAX_ACTION_AGE_MS, MAX_ACTION_AHEAD_MS]
        for action in actions:
            args += (
                action.action_id,
                action.timestamp_ms,
                0 if isinstance(action.points_or_refusal, Refusal) else 1,
                self._cooldown_ms(action),
            )
        with redis_errors():
            answer = await self._reserve(
                keys=[self._namespace.limits_since, *(key for action in actions for key in self._keys(action))],
                args=args,
            )
        decisions = [
            LimitDecision(_refusal(action, verdict, wait), reserved, left if left >= 0 else None)
            for action, verdict, wait, reserved, left in zip(
                actions, answer[2::4], answer[3::4], answer[4::4], answer[5::4], strict=True
            )
        ]
        if self._retention.reconnects != self._seen_reconnects:
            self._seen_reconnects = self._retention.reconnects
            self.invalidate()
        self._is_young = answer[0] - answer[1] < self.max_window_ms
        return decisions, not (self._is_young or monotonic() < self._trusted_from or self._retention.evicts)

    def invalidate(self) -> None:
        """Redis may lack actions from before this moment. The log decides too, until the longest window is over."""
        self._trusted_from = monotonic() + self.max_window_ms / 1000

    async def reset_windows_aio(self) -> None:
        """Notes in Redis, for all nodes, that its windows are complete only from now on. Raises StorageUnavailable."""
        with redis_errors():
            await self._since(keys=[self._namespace.limits_since], args=["reset"])

    async def confirm_windows_aio(self, conn: asyncpg.Connection) -> None:
        """Notes in Redis that young windows are complete, if no action was recorded in the time that they miss, as at a
        first start. Does so at most once in CONFIRM_INTERVAL_SECONDS.

        Raises StorageUnavailable.
        """
        if not self._is_young or monotonic() < self._confirm_at:
            return
        self._confirm_at = monotonic() + CONFIRM_INTERVAL_SECONDS
        key = self._namespace.limits_since
        with redis_errors():
            since, now = await self._since(keys=[key], args=["look"])
        self._is_young = now - since < self.max_window_ms
        if self._is_young:
            with postgres_errors():
                # an age: the stores' clocks may differ
                recent = await conn.fetchval(RECENT_SQL, now - since + self.max_window_ms)
            if not recent:
                with redis_errors():
                    await self._since(keys=[key], args=["complete", since, self.max_window_ms])

    async def release_aio(self, given_back: Iterable[tuple[SubmittedAction, int]]) -> None:
        """Releases what `reserve_aio` newly reserved, given as (action, bits). Raises StorageUnavailable; then the
        reservations stay until they expire."""
        pairs = [(action, what) for action, what in given_back if what]
        if pairs:
            with redis_errors():
                await self._release(
                    keys=[key for action, _ in pairs for key in self._keys(action)],
                    args=[value for action, what in pairs for value in (action.action_id, what)],
                )

    async def decide_by_log_aio(
        self, conn: asyncpg.Connection, actions: Sequence[SubmittedAction]
    ) -> list[Refusal | None]:
        """Decides by PostgreSQL's action log and clock; None: admitted. Exact if the transaction has locked the users'
        rows.

        A refused action is not in the log, so it uses no slot. Actions that are not limited are admitted.
        """
        limited = [action for action in actions if action.is_limited]
        if len(limited) < len(actions):
            decisions = iter(await self.decide_by_log_aio(conn, limited) if limited else ())
            return [next(decisions) if action.is_limited else None for action in actions]
        rows = await conn.fetch(
            LOGGED_SQL,
            [action.user for action in actions],
            [action.action_type for action in actions],
            [action.action_id for action in actions],
            [self._cooldown_ms(action) for action in actions],
        )
        here: dict[Any, list[int]] = {}  # what this batch admits counts against the rest of it
        begun: dict[Any, int] = {}
        refusals = []
        for action, row in zip(actions, rows, strict=True):
            now, stamps = row["now"], (row["stamps"] or []) + here.get(action.user, [])
            started = max(row["started"] or 0, begun.get((action.user, action.action_type), 0))
            refusal = self._by_log(action, now, stamps, started)
            if refusal is None and not row["is_known"]:  # a repeated action is counted already
                here.setdefault(action.user, []).append(now)
                begun[action.user, action.action_type] = now
            refusals.append(refusal)
        return refusals

    def _by_log(self, action: SubmittedAction, now: int, stamps: Sequence[int], started: int) -> Refusal | None:
        if self.per_minute and len(stamps) >= self.per_minute:
            return too_many_actions(stamps[-self.per_minute] + WINDOW_MS - now)
        if started and started + self._cooldown_ms(action) > now:
            return cooling_down(started + self._cooldown_ms(action) - now)
        if not is_timely(action.timestamp_ms, now):
            return TOO_OLD_OR_AHEAD
        return action.points_or_refusal if isinstance(action.points_or_refusal, Refusal) else None

    def _cooldown_ms(self, action: SubmittedAction) -> int:
        return action.cooldown_ms if self.cooldowns else 0

    def _keys(self, action: SubmittedAction) -> tuple[str, str]:
        user = user_id(action.user)
        return self._namespace.window(user), self._namespace.cooldown(user, action.action_type)


def _refusal(action: SubmittedAction, verdict: int, wait: int) -> Refusal | None:
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
            assert isinstance(action.points_or_refusal, Refusal)  # as the script was called
            return action.points_or_refusal
