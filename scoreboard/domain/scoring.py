"""The points of an action, by the rules of an actions file. Pure.

`Rule` is one action type, as `domain.action_rules` reads it from the file once at start. `award` applies it to an
action. Points never come from a client.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from scoreboard.domain.actions import Action, invalid
from scoreboard.domain.errors import Refusal
from scoreboard.domain.metadata_schema import MetadataField, check_metadata


class TimeRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rules for `metadata.timeSpent`, in seconds."""

    minimum: float = 0
    maximum: float = 86_400
    fast_under_seconds: float = 0
    bonus: float = 1.0
    required: bool = False


class DailyCap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The most that a user gets for actions of one type in a day (UTC); 0: no cap."""

    points: int = 0
    count: int = 0


class StartRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An action is submitted `minimum` to `expires` seconds after its start, by the database's clock."""

    minimum: float = 0
    expires: float = 3600


class WebhookRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The server that is asked about each action, and the key that signs the question."""

    url: str
    secret: str

    def __repr__(self) -> str:
        return "WebhookRule()"  # an address may have a key in it


class EvidenceRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An action names a blob that proves it. `retention`: days that the blob is kept after the decision."""

    retention: int = 30


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One action type. `cooldown` in seconds, 0 = none; `difficulty` maps a name to a factor, the first is the
    default.

    `trusted`: only a server key submits it, never a user. `free_points`, with `trusted` only: the request names the
    points, from 1 to `points`.

    `hold`: an action waits until somebody approves or refuses it, as with `evidence`. After `hold_days` without a
    decision `undecided` happens.
    """

    title: str
    points: int
    cooldown: int = 0
    difficulty: dict[str, float] = {}
    time: TimeRule | None = None
    button: bool = True  # whether the page has one for it
    trusted: bool = False
    free_points: bool = False
    metadata: dict[str, MetadataField] = {}
    unknown_metadata: bool = True  # whether metadata may have fields that are not in `metadata`
    daily_cap: DailyCap | None = None
    started: StartRule | None = None
    webhook: WebhookRule | None = None
    evidence: EvidenceRule | None = None
    hold: bool = False
    hold_days: int = 7
    undecided: Literal["refuse", "approve"] = "refuse"

    @property
    def is_held(self) -> bool:
        """Whether its actions wait for a decision."""
        return self.hold or self.evidence is not None

    @property
    def is_checked(self) -> bool:
        """Whether its actions need more than points, limits and metadata."""
        return self.is_held or any((self.trusted, self.daily_cap, self.started, self.webhook))


Rules = Mapping[str, Rule]


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
    if rule.metadata or not rule.unknown_metadata:
        wrong = check_metadata(metadata, rule.metadata, known=None if rule.unknown_metadata else _known_names(rule))
        if wrong is not None:
            return invalid(f"metadata.{wrong.field}", wrong.message)
    factor = _difficulty(metadata, rule)
    if isinstance(factor, Refusal):
        return factor
    bonus = _time(metadata, rule.time)
    if isinstance(bonus, Refusal):
        return bonus
    return max(1, round(rule.points * factor * bonus))


def _known_names(rule: Rule) -> set[str]:
    """The names that metadata of this type may have where others are refused."""
    return {*rule.metadata, *(["difficulty"] if rule.difficulty else []), *(["timeSpent"] if rule.time else [])}


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
