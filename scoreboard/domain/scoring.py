"""What an action is worth: the rules of `config/actions.toml`, applied.

Pure: the rules are read once at start (`read_rules`) and asked for each action (`award`). Points come from here and never from a client.
"""

import tomllib
from collections.abc import Mapping
from typing import Any

import msgspec

from scoreboard.domain.actions import ACTION_TYPE_LENGTH, Action, invalid
from scoreboard.domain.errors import Refusal, SettingsError

MOST_POINTS = 100_000  # an action's largest worth: far below what 2^53 / one action a second for a lifetime would need
LONGEST_COOLDOWN = 7 * 24 * 3600  # seconds


class TimeRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rules for `metadata.timeSpent`, in seconds."""

    minimum: float = 0
    maximum: float = 86_400
    swift: float = 0
    bonus: float = 1.0
    required: bool = False


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One action type. `cooldown` in seconds, 0 = none; `difficulty` maps a name to a factor, the first is the default."""

    title: str
    points: int
    cooldown: int = 0
    difficulty: dict[str, float] = {}
    time: TimeRule | None = None


Rules = Mapping[str, Rule]


def read_rules(text: str) -> dict[str, Rule]:
    """The rules of a TOML text. Raises SettingsError with one line that names the action type."""
    try:
        rules = msgspec.convert(tomllib.loads(text), dict[str, Rule])
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as exc:
        raise SettingsError(f"actions: {exc}") from exc
    if not rules:
        raise SettingsError("actions: names no action type")
    for name, rule in rules.items():
        if not 1 <= len(name) <= ACTION_TYPE_LENGTH:
            raise SettingsError(f"actions.{name}: a name has 1 to {ACTION_TYPE_LENGTH} characters")
        if not 0 <= rule.cooldown <= LONGEST_COOLDOWN:
            raise SettingsError(f"actions.{name}.cooldown: must be 0 to {LONGEST_COOLDOWN} seconds")
        if any(not 0 < factor <= 100 for factor in rule.difficulty.values()):
            raise SettingsError(f"actions.{name}.difficulty: a factor is above 0 and at most 100")
        if rule.time and not (0 <= rule.time.minimum <= rule.time.maximum and 0 < rule.time.bonus <= 100):
            raise SettingsError(f"actions.{name}.time: minimum must not be above maximum, bonus is above 0 and at most 100")
        if not (1 <= rule.points <= MOST_POINTS and greatest(rule) <= MOST_POINTS):
            raise SettingsError(f"actions.{name}.points: must give 1 to {MOST_POINTS} points")
    return rules


def greatest(rule: Rule) -> int:
    """The most points that one action of this type can give."""
    return round(rule.points * max(rule.difficulty.values(), default=1.0) * max(1.0, rule.time.bonus if rule.time else 1.0))


def award(action: Action, rules: Rules) -> int | Refusal:
    """The points of an action (at least 1), or why its type's rule refuses it."""
    rule = rules.get(action.type)
    if rule is None:
        return invalid("actionType", "is not known here")
    metadata = action.metadata or {}
    factor = _difficulty(metadata, rule)
    if isinstance(factor, Refusal):
        return factor
    bonus = _time(metadata, rule.time)
    if isinstance(bonus, Refusal):
        return bonus
    return max(1, round(rule.points * factor * bonus))


def _difficulty(metadata: Mapping[str, Any], rule: Rule) -> float | Refusal:
    if not rule.difficulty:
        return 1.0
    named = metadata.get("difficulty")
    if named is None:
        return next(iter(rule.difficulty.values()))
    if not isinstance(named, str) or named not in rule.difficulty:
        return invalid("metadata.difficulty", f"must be one of {', '.join(rule.difficulty)}")
    return rule.difficulty[named]


def _time(metadata: Mapping[str, Any], rule: TimeRule | None) -> float | Refusal:
    if rule is None:
        return 1.0
    spent = metadata.get("timeSpent")
    if spent is None:
        return invalid("metadata.timeSpent", "is required, in seconds") if rule.required else 1.0
    if isinstance(spent, bool) or not isinstance(spent, int | float):
        return invalid("metadata.timeSpent", "must be a number of seconds")
    if not rule.minimum <= spent <= rule.maximum:
        return invalid("metadata.timeSpent", f"must be {rule.minimum:g} to {rule.maximum:g} seconds")
    return rule.bonus if spent <= rule.swift else 1.0
