"""Opens flags, and has them announced: one transaction for the flag, what its policy does, and the alert.

Called by storage.anomaly_log for what is found in the action log, and by storage.log_in_networks. Coroutines run in
asyncio.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import asyncpg

from scoreboard.domain.anomalies import AnomalyPolicy, AnomalyRule
from scoreboard.domain.flags import Flag, FlagDraft
from scoreboard.domain.outgoing_messages import Channel, OutgoingMessage
from scoreboard.storage.postgres import flag_policies, flags, outgoing_messages

NO_POLICIES: Mapping[AnomalyRule, AnomalyPolicy] = MappingProxyType({})

ANOMALY = "anomaly"  # the kind of an alert that tells of one flag
MANY_ANOMALIES = "many_anomalies"  # of the one alert that tells of all further ones of an hour
MAX_ALERTS_AN_HOUR = 30  # of single flags: a crowd of bots must not fill the channel, in which other alerts come, too

ALERTS_SQL = """
SELECT count(*) AS sent, to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24') AS hour FROM outgoing_messages
WHERE channel = $1 AND kind = $2 AND created_at >= date_trunc('hour', now())"""


class Opened(NamedTuple):
    """What was done. `alerts_dropped`: alerts for which the outbox had no room."""

    flags: list[Flag]
    alerts: int
    alerts_dropped: int


async def open_flags_aio(
    conn: asyncpg.Connection,
    drafts: Sequence[FlagDraft],
    *,
    alerts: bool,
    policies: Mapping[AnomalyRule, AnomalyPolicy] = NO_POLICIES,
) -> Opened:
    """Opens flags in the caller's transaction, does what the policies say, and puts alerts of the new flags into the
    outbox. `alerts`: whether somebody receives them."""
    opened = await flags.open_aio(conn, [draft for draft in drafts if draft.scope is None])
    for draft in drafts:
        if draft.scope is not None:
            opened += await flags.open_scoped_aio(conn, draft)
    await flag_policies.apply_aio(conn, opened, policies)
    if not alerts or not opened:
        return Opened(opened, 0, 0)
    row = await conn.fetchrow(ALERTS_SQL, Channel.ALERTS, ANOMALY)
    assert row is not None  # an aggregate has one
    messages = alert_messages(opened, max(0, MAX_ALERTS_AN_HOUR - row["sent"]), row["hour"])
    added = await outgoing_messages.add_aio(conn, messages)
    known = sum(message.kind == MANY_ANOMALIES for message in messages)  # of an hour, so it may be there already
    return Opened(opened, added, max(0, len(messages) - known - added))


def alert_messages(opened: Sequence[Flag], room: int, hour: str) -> list[OutgoingMessage]:
    """Alerts of new flags: one each for the first `room`, and one for all others of the hour. They contain ids and
    numbers; no name, address or text of a client."""
    messages = [
        OutgoingMessage(
            Channel.ALERTS,
            ANOMALY,
            f"flag-{flag.id}",
            f"Anomaly {flag.rule}: user {flag.user} ({_figures(flag)}); flag {flag.id}",
            {"flagId": flag.id, "rule": flag.rule, "userId": str(flag.user), "evidence": dict(flag.evidence)},
        )
        for flag in opened[:room]
    ]
    if len(opened) > room:
        summary = f"More than {MAX_ALERTS_AN_HOUR} anomalies were flagged this hour; the list of flags has all of them"
        messages.append(OutgoingMessage(Channel.ALERTS, MANY_ANOMALIES, f"many-anomalies-{hour}", summary, {}))
    return messages


def _figures(flag: Flag) -> str:
    return ", ".join(f"{name} {value}" for name, value in flag.evidence.items() if isinstance(value, int | float))
