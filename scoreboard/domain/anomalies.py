"""Rules that find suspicious patterns in a user's recent actions (specification: "Anomaly Detection"). Pure.

`find` is given a user's actions in their order, of which the last ones are new, and the limits of the settings. It
returns at most one finding a rule. The worker (workers.anomalies) stores findings as flags; nothing here decides
whether somebody has cheated. A finding's evidence has numbers only: no text of a client, no name, no address.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import pairwise
from math import sqrt
from typing import NamedTuple

# How far back a rule looks, in milliseconds: the specification's "actions/hour".
HISTORY_MS = 3_600_000
# A user's actions that a rule looks at; the highest limit of actions an hour is below it.
HISTORY_ACTIONS = 500
# "Score jumps" of the specification: points of one action, or of several within this time, in milliseconds.
JUMP_MS = 60_000
# Intervals below this mean, in milliseconds, are those of a program that submits in bulk, such as a game's own server.
MIN_REGULAR_MEAN_MS = 500
MAX_CLAIMED_SECONDS = 1_000_000.0  # of one action: more is counted as this, so that a sum stays exact

PERCENT = 100


class AnomalyRule(StrEnum):
    """What a flag says, in the names of the settings."""

    POINTS_JUMP = "points_jump"
    ACTION_RATE = "action_rate"
    REGULAR_INTERVALS = "regular_intervals"
    IMPOSSIBLE_TIME = "impossible_time"
    SHARED_ADDRESS = "shared_address"


class AnomalyPolicy(StrEnum):
    """What happens to a user whom a rule flags, until a moderator has decided."""

    FLAG = "flag"  # nothing
    HOLD = "hold"  # further actions wait
    BLOCK = "block"  # the user is banned


class AnomalyLimits(NamedTuple):
    """The settings of the rules; 0 switches a rule off."""

    points_jump: int = 1000  # points within JUMP_MS
    action_rate: int = 100  # actions an hour
    regular_intervals: int = 20  # actions in a row whose intervals are compared
    regular_percent: int = 5  # coefficient of variation of these intervals, below which they are too regular
    impossible_time: int = 600  # seconds that were claimed beyond the time that has passed


class LoggedAction(NamedTuple):
    """An action of the log, as far as the rules need it."""

    seq: int  # its order number
    at_ms: int  # when it was recorded, Unix milliseconds
    points: int
    claimed_seconds: float = 0.0  # the client's `timeSpent`; 0: none


class Finding(NamedTuple):
    """What a rule found, with the action at which it was found."""

    rule: AnomalyRule
    seq: int
    evidence: Mapping[str, int | float]


Rule = Callable[[Sequence[LoggedAction], AnomalyLimits], Mapping[str, int | float] | None]
"""Evidence about the last of some actions, all of them at most HISTORY_MS older; None: nothing is found."""


def find(actions: Sequence[LoggedAction], new: int, limits: AnomalyLimits) -> list[Finding]:
    """The first finding of each rule about the last `new` of a user's actions, which are in the order of `seq`.

    Each action is looked at with the same actions before it, however they were divided into calls, if the caller gives
    the HISTORY_ACTIONS before the first new one.
    """
    return [finding for rule in RULES if (finding := next(_findings(rule, actions, new, limits), None)) is not None]


def _findings(rule: AnomalyRule, actions: Sequence[LoggedAction], new: int, limits: AnomalyLimits) -> Iterator[Finding]:
    begin = 0
    for end in range(len(actions) - new, len(actions)):
        last = actions[end]
        begin = max(begin, end - HISTORY_ACTIONS)
        while actions[begin].at_ms < last.at_ms - HISTORY_MS:
            begin += 1
        if (evidence := RULES[rule](actions[begin : end + 1], limits)) is not None:
            yield Finding(rule, last.seq, evidence)


def _points_jump(actions: Sequence[LoggedAction], limits: AnomalyLimits) -> Mapping[str, int | float] | None:
    """More points within a minute than anybody should get."""
    if not limits.points_jump:
        return None
    points = number = 0
    for action in reversed(actions):
        if action.at_ms < actions[-1].at_ms - JUMP_MS:
            break
        points += action.points
        number += 1
    return {"points": points, "actions": number, "seconds": JUMP_MS // 1000} if points > limits.points_jump else None


def _action_rate(actions: Sequence[LoggedAction], limits: AnomalyLimits) -> Mapping[str, int | float] | None:
    """More actions within an hour than anybody should do."""
    is_hit = limits.action_rate and len(actions) > limits.action_rate
    return {"actions": len(actions), "seconds": HISTORY_MS // 1000} if is_hit else None


def _regular_intervals(actions: Sequence[LoggedAction], limits: AnomalyLimits) -> Mapping[str, int | float] | None:
    """Intervals that are all alike, as a program's: their standard deviation is a few per cent of their mean."""
    if not limits.regular_intervals or len(actions) < limits.regular_intervals:
        return None
    intervals = [after.at_ms - before.at_ms for before, after in pairwise(actions[-limits.regular_intervals :])]
    mean = sum(intervals) / len(intervals)
    if mean < MIN_REGULAR_MEAN_MS:
        return None
    percent = PERCENT * sqrt(sum((interval - mean) ** 2 for interval in intervals) / len(intervals)) / mean
    if percent >= limits.regular_percent:
        return None
    return {"actions": len(intervals) + 1, "meanMs": round(mean), "variationPercent": round(percent, 2)}


def _impossible_time(actions: Sequence[LoggedAction], limits: AnomalyLimits) -> Mapping[str, int | float] | None:
    """More time claimed than has passed. What an action claims lies between the action before it and itself, if nobody
    does two things at once: what exceeds that is carried on, and what falls short is used up (CUSUM)."""
    if not limits.impossible_time:
        return None
    excess = 0.0
    for before, action in pairwise(actions):
        claimed = min(action.claimed_seconds, MAX_CLAIMED_SECONDS)
        excess = max(0.0, excess + claimed - max(0, action.at_ms - before.at_ms) / 1000)
    return {"excessSeconds": round(excess), "actions": len(actions)} if excess > limits.impossible_time else None


RULES: Mapping[AnomalyRule, Rule] = {
    AnomalyRule.POINTS_JUMP: _points_jump,
    AnomalyRule.ACTION_RATE: _action_rate,
    AnomalyRule.REGULAR_INTERVALS: _regular_intervals,
    AnomalyRule.IMPOSSIBLE_TIME: _impossible_time,
}
