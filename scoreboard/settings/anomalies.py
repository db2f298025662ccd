"""The sections `anomalies` and `alerts` of the settings.

Tested in tests/settings/test_model.py.
"""

from typing import Annotated, Literal

from pydantic import Field, SecretStr, model_validator

from scoreboard.domain.anomalies import HISTORY_ACTIONS, AnomalyLimits, AnomalyPolicy, AnomalyRule
from scoreboard.settings.values import Limit, Section, Whole

MIN_REGULAR_ACTIONS = 5  # of fewer intervals anybody has some that are alike


class Anomalies(Section):
    """Rules that flag suspicious patterns; 0 or false switches one off."""

    points_jump: Limit = 1000  # specification: "score jumps > 1000 points"
    action_rate: Annotated[Limit, Field(le=HISTORY_ACTIONS)] = 100  # specification: "users with > 100 actions/hour"
    regular_intervals: Annotated[Limit, Field(le=HISTORY_ACTIONS)] = 20
    regular_percent: Annotated[Whole, Field(ge=1, le=50)] = 5
    impossible_time: Limit = 600
    shared_address: Annotated[Limit, Field(le=100_000)] = 100
    points_jump_policy: AnomalyPolicy = AnomalyPolicy.FLAG
    action_rate_policy: AnomalyPolicy = AnomalyPolicy.FLAG
    regular_intervals_policy: AnomalyPolicy = AnomalyPolicy.FLAG
    impossible_time_policy: AnomalyPolicy = AnomalyPolicy.FLAG

    @model_validator(mode="after")
    def _check_intervals(self) -> "Anomalies":
        if 0 < self.regular_intervals < MIN_REGULAR_ACTIONS:
            raise ValueError(f"anomalies.regular_intervals must be at least {MIN_REGULAR_ACTIONS}, or 0")
        return self

    @property
    def policies(self) -> dict[AnomalyRule, AnomalyPolicy]:
        """What each rule does besides flagging. There is none for many accounts of one network: that is said of all of
        them at once."""
        return {
            AnomalyRule.POINTS_JUMP: self.points_jump_policy,
            AnomalyRule.ACTION_RATE: self.action_rate_policy,
            AnomalyRule.REGULAR_INTERVALS: self.regular_intervals_policy,
            AnomalyRule.IMPOSSIBLE_TIME: self.impossible_time_policy,
        }

    @property
    def limits(self) -> AnomalyLimits:
        """The limits of the rules over the action log."""
        return AnomalyLimits(
            self.points_jump,
            self.action_rate,
            self.regular_intervals,
            self.regular_percent,
            self.impossible_time,
        )


class Alerts(Section):
    """Where alerts are sent. app.anomalies checks the URL."""

    url: SecretStr = SecretStr("")  # "": none are sent
    form: Literal["json", "discord", "slack"] = "json"
    secret: SecretStr = SecretStr("")  # signs the JSON form
