"""The points of an action, by the rules of an actions file. Pure.

The rules are read once at start (`read_rules`) and applied to each action (`award`). Points never come from a client.
"""

import difflib
import re
import tomllib
from collections.abc import Mapping
from math import isfinite
from typing import Any

import msgspec

from scoreboard.domain.actions import MAX_ACTION_TYPE_LENGTH, Action, invalid
from scoreboard.domain.errors import Refusal, SettingsError
from scoreboard.domain.names import is_visible
from scoreboard.domain.toml_lines import line_of, shown_keys, shown_reason, table_before

MAX_POINTS = 100_000  # of one action; a lifetime of one action a second stays far below 2^53
MAX_COOLDOWN_SECONDS = 7 * 24 * 3600  # a week
MAX_TITLE_LENGTH = 80  # characters; a button shows some thirty in a line
MAX_ACTION_TYPES = 100  # in one file: each is a button of the page unless it says `button = false`
MAX_DIFFICULTIES = 50  # of one action type


class TimeRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rules for `metadata.timeSpent`, in seconds."""

    minimum: float = 0
    maximum: float = 86_400
    fast_under_seconds: float = 0
    bonus: float = 1.0
    required: bool = False


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One action type. `cooldown` in seconds, 0 = none; `difficulty` maps a name to a factor, the first is the
    default.

    `trusted`: only a server key submits it, never a user. `free_points`, with `trusted` only: the request names the
    points, from 1 to `points`.
    """

    title: str
    points: int
    cooldown: int = 0
    difficulty: dict[str, float] = {}
    time: TimeRule | None = None
    button: bool = True  # whether the page has one for it
    trusted: bool = False
    free_points: bool = False


Rules = Mapping[str, Rule]


# ---- reading --------------------------------------------------------------------------------------------------------


class _BadRuleError(Exception):
    """A fault and its place in the file: the keys from the action's name on."""

    def __init__(self, message: str, *keys: str) -> None:
        super().__init__(message)
        self.keys = keys


_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL).fullmatch
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL).fullmatch
_SYNTAX = re.compile(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", re.DOTALL).fullmatch


def read_rules(text: str, file: str = "actions.toml") -> dict[str, Rule]:
    """The rules of a TOML text. Raises SettingsError: one line with the file, the line, the action type and the key."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        found = _SYNTAX(str(exc))
        line = int(found[2]) if found and found[2] else len(text.rstrip().split("\n"))
        reason = shown_reason(found[1] if found else exc)
        raise SettingsError(f"actions{table_before(text, line)}: {reason} (file {file}, line {line})") from None
    except RecursionError:
        raise SettingsError(f"actions: nested too deeply (file {file})") from None
    if not tables:
        raise SettingsError(f"actions: the file names no action type (file {file})")
    if len(tables) > MAX_ACTION_TYPES:
        raise SettingsError(
            f"actions: there are {len(tables)} action types, {MAX_ACTION_TYPES} are the most (file {file})"
        )
    try:
        return {name: _read_rule(name, table) for name, table in tables.items()}
    except _BadRuleError as exc:
        raise SettingsError(
            f"actions.{shown_keys(exc.keys)}: {exc} (file {file}, line {line_of(text, exc.keys)})"
        ) from None


def _read_rule(name: str, table: object) -> Rule:
    if not isinstance(table, dict):
        raise _BadRuleError("must be a table: [name] in a line of its own, its settings below", name)
    if not _is_shown(name, MAX_ACTION_TYPE_LENGTH):
        raise _BadRuleError(
            f"a name has 1 to {MAX_ACTION_TYPE_LENGTH} characters that can be printed, and shows something", name
        )
    try:
        rule = msgspec.convert(table, Rule)
    except msgspec.ValidationError as exc:
        message, _, path = str(exc).partition(" - at `$")
        keys = (name, *(part for part in re.split(r"[.\[\]`]+", path) if part not in {"", "..."}))
        if found := _UNKNOWN(message):
            known = TimeRule.__struct_fields__ if "time" in keys else Rule.__struct_fields__
            close = difflib.get_close_matches(found[1], known, n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"
            raise _BadRuleError(f"unknown key{hint}", *keys, found[1]) from None
        if found := _MISSING(message):
            raise _BadRuleError(f"{found[1]} is missing", *keys) from None
        raise _BadRuleError(message.replace("Expected", "must be").replace("`", ""), *keys) from None
    _check(name, rule)
    return rule


def _check(name: str, rule: Rule) -> None:
    if not _is_shown(rule.title, MAX_TITLE_LENGTH):
        raise _BadRuleError(
            f"must have 1 to {MAX_TITLE_LENGTH} characters that can be printed, and show something", name, "title"
        )
    if not 0 <= rule.cooldown <= MAX_COOLDOWN_SECONDS:
        raise _BadRuleError(f"must be 0 to {MAX_COOLDOWN_SECONDS} seconds", name, "cooldown")
    if len(rule.difficulty) > MAX_DIFFICULTIES:
        raise _BadRuleError(f"may have {MAX_DIFFICULTIES} names", name, "difficulty")
    for level, factor in rule.difficulty.items():
        if not _is_shown(level, MAX_ACTION_TYPE_LENGTH):
            raise _BadRuleError(
                f"a name has 1 to {MAX_ACTION_TYPE_LENGTH} characters that can be printed, and shows something",
                name,
                "difficulty",
                level,
            )
        if not 0 < factor <= 100:
            raise _BadRuleError("a factor is above 0 and at most 100", name, "difficulty", level)
    if rule.time:
        _check_time(name, rule.time)
    if rule.free_points and not rule.trusted:
        raise _BadRuleError("needs trusted = true: points never come from a user", name, "free_points")
    if rule.free_points and (rule.difficulty or rule.time):
        raise _BadRuleError("the request names the points, so difficulty and time change nothing", name, "free_points")
    if not (1 <= rule.points <= MAX_POINTS and max_points(rule) <= MAX_POINTS):
        raise _BadRuleError(f"must give 1 to {MAX_POINTS} points, with the greatest factor and bonus", name, "points")


def _check_time(name: str, time: TimeRule) -> None:
    if not (0 <= time.minimum <= time.maximum and isfinite(time.maximum)):
        raise _BadRuleError("minimum must be 0 or more and not above maximum", name, "time")
    if not 0 <= time.fast_under_seconds < float("inf"):
        raise _BadRuleError("must be a number of seconds, 0 or more", name, "time", "fast_under_seconds")
    if not 0 < time.bonus <= 100:
        raise _BadRuleError("is above 0 and at most 100", name, "time", "bonus")
    if time.fast_under_seconds and time.bonus == 1:
        raise _BadRuleError("changes nothing without a bonus other than 1", name, "time", "fast_under_seconds")
    if time.bonus != 1 and not time.fast_under_seconds:
        raise _BadRuleError(
            "changes nothing without fast_under_seconds: within so many seconds it is given", name, "time", "bonus"
        )
    if 0 < time.fast_under_seconds < time.minimum:
        raise _BadRuleError("is below minimum, so nobody can be so fast", name, "time", "fast_under_seconds")


def _is_shown(text: str, max_length: int) -> bool:
    return 1 <= len(text) <= max_length and text.isprintable() and text == text.strip() and is_visible(text)


# ---- awarding -------------------------------------------------------------------------------------------------------


def max_points(rule: Rule) -> int:
    """The most points that one action of this type can give."""
    return round(
        rule.points * max(rule.difficulty.values(), default=1.0) * max(1.0, rule.time.bonus if rule.time else 1.0)
    )


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
    return rule.bonus if spent <= rule.fast_under_seconds else 1.0
