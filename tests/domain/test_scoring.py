"""What an action is worth."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain.action_rules import MAX_POINTS, read_rules
from scoreboard.domain.actions import Action
from scoreboard.domain.errors import Refusal
from scoreboard.domain.scoring import award, max_points

SHIPPED = (Path(__file__).parents[2] / "config" / "actions.toml").read_text("utf-8")
RULES = read_rules(SHIPPED)


def points_or_refusal(kind: str, metadata: dict[str, Any] | None = None) -> int | str:
    """Points, or the field that is refused."""
    found = award(Action("a", kind, 0, metadata, None), RULES)
    return found.errors[0].field if isinstance(found, Refusal) else found


def test_the_shipped_rules_are_those_of_the_specification_and_a_few_more() -> None:
    """quiz_complete and task_finish are there, and nothing is worth more than its bounds."""
    assert {"quiz_complete", "task_finish"} < set(RULES)


@pytest.mark.parametrize(
    ("kind", "metadata", "points"),
    [
        ("quiz_complete", None, 100),
        ("quiz_complete", {}, 100),
        ("quiz_complete", {"difficulty": "hard"}, 150),
        ("quiz_complete", {"difficulty": "easy", "timeSpent": 61}, 50),
        ("quiz_complete", {"difficulty": "hard", "timeSpent": 60}, 180),
        ("puzzle_solve", {"difficulty": "hard", "timeSpent": 30}, 210),
        ("puzzle_solve", {"timeSpent": 30.5}, 80),
        ("task_finish", {"difficulty": "hard", "points": 10**6}, 100),
        ("daily_checkin", {"difficulty": "hard"}, 10),
        ("quiz_complete", {"difficulty": "extreme"}, "metadata.difficulty"),
        ("quiz_complete", {"difficulty": 2}, "metadata.difficulty"),
        ("quiz_complete", {"difficulty": ["hard"]}, "metadata.difficulty"),
        ("quiz_complete", {"timeSpent": 4}, "metadata.timeSpent"),
        ("quiz_complete", {"timeSpent": "60"}, "metadata.timeSpent"),
        ("quiz_complete", {"timeSpent": True}, "metadata.timeSpent"),
        ("quiz_complete", {"timeSpent": 10**400}, "metadata.timeSpent"),
        ("quiz_complete", {"timeSpent": -1e308}, "metadata.timeSpent"),
        ("puzzle_solve", None, "metadata.timeSpent"),
        ("dance", None, "actionType"),
    ],
)
def test_what_was_done_decides_what_it_gives(kind: str, metadata: dict[str, Any] | None, points: int | str) -> None:
    """Difficulty and time spent matter; whatever else a client sends does not."""
    assert points_or_refusal(kind, metadata) == points


anything = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())


@given(
    st.sampled_from(sorted(RULES)),
    st.fixed_dictionaries(
        {},
        optional={
            "difficulty": st.sampled_from(["easy", "medium", "hard"]) | anything,
            "timeSpent": st.floats(0, 4_000) | anything,
            "points": anything,
        },
    ),
)
def test_points_are_within_the_types_bounds(kind: str, metadata: dict[str, Any]) -> None:
    """Whatever the metadata: a refusal, or 1 to the most that the type can give."""
    found = award(Action("a", kind, 0, metadata, None), RULES)
    assert isinstance(found, Refusal) or 1 <= found <= max_points(RULES[kind]) <= MAX_POINTS
