"""Reads the rules of action types from the TOML text of an actions file, and refuses what could not work. Pure.

Called by operations.action_rules at the start, and by `scoreboard check-config`. Every fault is one line with the file,
the line, the action type and the key. `domain.scoring` has the rules, and applies them.
"""

import difflib
import re
import tomllib
from collections.abc import Callable
from math import isfinite
from typing import TypeVar

import msgspec

from scoreboard.domain.actions import MAX_ACTION_TYPE_LENGTH
from scoreboard.domain.errors import SettingsError
from scoreboard.domain.metadata_schema import MetadataField, is_of_type
from scoreboard.domain.names import is_visible
from scoreboard.domain.scoring import DailyCap, EvidenceRule, Rule, StartRule, TimeRule, WebhookRule, max_points
from scoreboard.domain.toml_lines import line_of, shown_keys, shown_reason, table_before

MAX_POINTS = 100_000  # of one action; a lifetime of one action a second stays far below 2^53
MAX_COOLDOWN_SECONDS = 7 * 24 * 3600  # a week
MAX_TITLE_LENGTH = 80  # characters; a button shows some thirty in a line
MAX_ACTION_TYPES = 100  # in one file: each is a button of the page unless it says `button = false`
MAX_DIFFICULTIES = 50  # of one action type
MAX_METADATA_FIELDS = 50  # of one action type
MAX_CHOICES = 100  # of a field of metadata
MAX_DAILY = 1_000_000_000  # points or actions of a user and day
MAX_START_SECONDS = 24 * 3600  # a day; every open start is a row
MAX_HOLD_DAYS = 90
MAX_RETENTION_DAYS = 365
MIN_SECRET_LENGTH = 16  # characters of a webhook's key
MAX_SECRET_LENGTH = 512

T = TypeVar("T")

# The tables of an action type, by key.
_TABLES: dict[str, type[msgspec.Struct]] = {
    "time": TimeRule,
    "daily_cap": DailyCap,
    "started": StartRule,
    "webhook": WebhookRule,
    "evidence": EvidenceRule,
}


class _BadRuleError(Exception):
    """A fault and its place in the file: the keys from the action's name on."""

    def __init__(self, message: str, *keys: str) -> None:
        super().__init__(message)
        self.keys = keys


_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL).fullmatch
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL).fullmatch
_SYNTAX = re.compile(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", re.DOTALL).fullmatch


def read_rules(
    text: str, file: str = "actions.toml", url_fault: Callable[[str], str | None] = lambda _: None
) -> dict[str, Rule]:
    """The rules of a TOML text. Raises SettingsError: one line with the file, the line, the action type and the key.

    `url_fault` says what is wrong with the URL of a webhook; None: nothing is.
    """
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
        rules = {name: _read_rule(name, table) for name, table in tables.items()}
        for name, rule in rules.items():
            if rule.webhook and (fault := url_fault(rule.webhook.url)):
                raise _BadRuleError(fault, name, "webhook", "url")
    except _BadRuleError as exc:
        raise SettingsError(
            f"actions.{shown_keys(exc.keys)}: {exc} (file {file}, line {line_of(text, exc.keys)})"
        ) from None
    return rules


def _read_rule(name: str, table: object) -> Rule:
    if not isinstance(table, dict):
        raise _BadRuleError("must be a table: [name] in a line of its own, its settings below", name)
    if not _is_shown(name, MAX_ACTION_TYPE_LENGTH):
        raise _BadRuleError(
            f"a name has 1 to {MAX_ACTION_TYPE_LENGTH} characters that can be printed, and shows something", name
        )
    if isinstance(fields := table.get("metadata"), dict):
        for field, settings in fields.items():  # one by one: msgspec does not tell which of them has the fault
            _convert(settings, MetadataField, name, "metadata", field)
    rule = _convert(table, Rule, name)
    _check(name, rule)
    return rule


def _convert(value: object, kind: type[T], *place: str) -> T:
    """The value as that type. Raises _BadRuleError with the keys of the fault."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as exc:
        message, _, path = str(exc).partition(" - at `$")
        keys = (*place, *(part for part in re.split(r"[.\[\]`]+", path) if part not in {"", "..."}))
        if found := _UNKNOWN(message):
            known = _known_keys(keys)
            close = difflib.get_close_matches(found[1], known, n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"
            raise _BadRuleError(f"unknown key{hint}", *keys, found[1]) from None
        if found := _MISSING(message):
            raise _BadRuleError(f"{found[1]} is missing", *keys) from None
        raise _BadRuleError(_plain(message), *keys) from None


def _plain(message: str) -> str:
    """A message of msgspec in the words of TOML, which has no null."""
    for old, new in (("Expected", "must be"), ("`", ""), (" | null", ""), ("must be object", "must be a table")):
        message = message.replace(old, new)
    return message


def _known_keys(keys: tuple[str, ...]) -> tuple[str, ...]:
    """The keys that the table at this place may have."""
    if keys[1:2] == ("metadata",):
        return MetadataField.__struct_fields__
    table = _TABLES.get(keys[1]) if len(keys) > 1 else None
    return (table or Rule).__struct_fields__


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
    _check_metadata(name, rule)
    _check_trust(name, rule)
    if not (1 <= rule.points <= MAX_POINTS and max_points(rule) <= MAX_POINTS):
        raise _BadRuleError(f"must give 1 to {MAX_POINTS} points, with the greatest factor and bonus", name, "points")
    if rule.daily_cap:
        _check_cap(name, rule, rule.daily_cap)


def _check_metadata(name: str, rule: Rule) -> None:
    if len(rule.metadata) > MAX_METADATA_FIELDS:
        raise _BadRuleError(f"may have {MAX_METADATA_FIELDS} fields", name, "metadata")
    for field_name, field in rule.metadata.items():
        at = (name, "metadata", field_name)
        if not _is_shown(field_name, MAX_ACTION_TYPE_LENGTH):
            raise _BadRuleError(
                f"a name has 1 to {MAX_ACTION_TYPE_LENGTH} characters that can be printed, and shows something", *at
            )
        if (field_name == "difficulty" and rule.difficulty) or (field_name == "timeSpent" and rule.time):
            raise _BadRuleError("has a rule already: difficulty and time of the action type", *at)
        if fault := _field_fault(field):
            raise _BadRuleError(fault[1], *at, fault[0])


def _field_fault(field: MetadataField) -> tuple[str, str] | None:
    """The key and what is wrong with it."""
    is_number, is_text = field.type in {"int", "number"}, field.type == "text"
    for key in ("minimum", "maximum"):
        bound = getattr(field, key)
        if bound is not None and not (is_number and isfinite(bound)):
            return key, "is a number, and for fields of type int or number"
    for key in ("min_length", "max_length"):
        bound = getattr(field, key)
        if bound is not None and not (is_text and bound >= 0):
            return key, "is 0 or more, and for fields of type text"
    if field.minimum is not None and field.maximum is not None and field.minimum > field.maximum:
        return "minimum", "must not be above maximum"
    if field.min_length is not None and field.max_length is not None and field.min_length > field.max_length:
        return "min_length", "must not be above max_length"
    if field.one_of is None:
        return None
    if not 1 <= len(field.one_of) <= MAX_CHOICES:
        return "one_of", f"must have 1 to {MAX_CHOICES} values"
    if field.type == "bool" or not all(is_of_type(value, field.type) for value in field.one_of):
        return "one_of", f"must have values of type {field.type}, and is not for bool"
    return None


def _check_cap(name: str, rule: Rule, cap: DailyCap) -> None:
    if not (cap.points or cap.count):
        raise _BadRuleError("needs points or count: the most a user gets in a day", name, "daily_cap")
    for key, value in (("points", cap.points), ("count", cap.count)):
        if not 0 <= value <= MAX_DAILY:
            raise _BadRuleError(f"must be 1 to {MAX_DAILY}", name, "daily_cap", key)
    if cap.points and cap.points < max_points(rule):
        raise _BadRuleError(
            f"is below {max_points(rule)}, which one action can give, so that could never count",
            name,
            "daily_cap",
            "points",
        )


def _check_trust(name: str, rule: Rule) -> None:
    """Who says that an action took place, and when it counts."""
    if rule.trusted:
        for key in ("daily_cap", "started", "webhook", "evidence", "hold"):
            if getattr(rule, key):
                raise _BadRuleError("changes nothing with trusted = true: users do not submit it", name, key)
    if rule.started and not 0 <= rule.started.minimum < rule.started.expires <= MAX_START_SECONDS:
        raise _BadRuleError(
            f"minimum must be 0 or more and below expires, which is at most {MAX_START_SECONDS} seconds",
            name,
            "started",
        )
    if rule.webhook and not MIN_SECRET_LENGTH <= len(rule.webhook.secret) <= MAX_SECRET_LENGTH:
        raise _BadRuleError(
            f"must have {MIN_SECRET_LENGTH} to {MAX_SECRET_LENGTH} characters", name, "webhook", "secret"
        )
    if rule.evidence and not 1 <= rule.evidence.retention <= MAX_RETENTION_DAYS:
        raise _BadRuleError(f"must be 1 to {MAX_RETENTION_DAYS} days", name, "evidence", "retention")
    if rule.free_points and not rule.trusted:
        raise _BadRuleError("needs trusted = true: points never come from a user", name, "free_points")
    if rule.free_points and (rule.difficulty or rule.time):
        raise _BadRuleError("the request names the points, so difficulty and time change nothing", name, "free_points")
    _check_hold(name, rule)


def _check_hold(name: str, rule: Rule) -> None:
    """How long an action waits for a decision."""
    if not 1 <= rule.hold_days <= MAX_HOLD_DAYS:
        raise _BadRuleError(f"must be 1 to {MAX_HOLD_DAYS} days", name, "hold_days")
    if not rule.is_held:
        for key, default in (("hold_days", 7), ("undecided", "refuse")):
            if getattr(rule, key) != default:
                raise _BadRuleError("changes nothing without hold = true or evidence", name, key)


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
