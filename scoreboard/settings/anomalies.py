"""The sections `anomalies` and `alerts` of the settings.

Tested in tests/settings/test_model.py.
"""

from typing import Annotated, Literal

from pydantic import Field, SecretStr, model_validator

from scoreboard.domain.anomalies import HISTORY_ACTIONS, AnomalyLimits
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

    @model_validator(mode="after")
    def _check_intervals(self) -> "Anomalies":
        if 0 < self.regular_intervals < MIN_REGULAR_ACTIONS:
            raise ValueError(f"anomalies.regular_intervals must be at least {MIN_REGULAR_ACTIONS}, or 0")
        return self

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
