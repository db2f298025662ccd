"""The body of a bulk submission: what is divided, what is the same action, and that nothing raises."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain.action_rules import read_rules
from scoreboard.domain.actions import TOO_OLD_OR_AHEAD
from scoreboard.domain.bulk_actions import BulkAction, bulk_points, parse_bulk_action, split_actions
from scoreboard.domain.errors import Refusal

NOW_MS = 1_768_041_000_000
ACTION: dict[str, Any] = {
    "externalId": "steam:42",
    "actionId": "a-1",
    "actionType": "win",
    "timestamp": "2026-01-10T10:30:00Z",
}
RULES = read_rules(
    '[win]\ntitle = "A"\npoints = 500\ntrusted = true\nfree_points = true\n[goal]\ntitle = "B"\npoints = 10\n'
)


def parsed(**others: Any) -> BulkAction:
    found = parse_bulk_action(json.dumps(ACTION | others).encode())
    assert isinstance(found, BulkAction), found
    return found


def test_an_action_is_read() -> None:
    """Its user by either id, its time in milliseconds, its metadata as the text that is stored."""
    found = parsed(metadata={"b": 1, "a": "ü"}, points=7)
    assert (found.external_id, found.user, found.points) == ("steam:42", None, 7)
    assert (found.action.id, found.action.timestamp_ms) == ("a-1", NOW_MS)
    assert found.action.metadata_json == '{"a":"ü","b":1}'


@pytest.mark.parametrize(
    "others",
    [
        {"actionType": "goal"},
        {"timestamp": "2026-01-10T10:30:00.0Z"},
        {"points": 2},
        {"points": None},
        {"metadata": {"a": 2}},
        {"metadata": {}},
        {"metadata": None},
    ],
)
def test_any_other_content_is_another_action(others: dict[str, Any]) -> None:
    """Under the same actionId it gets no outcome of the first."""
    first = parsed(points=1, metadata={"a": 1})
    assert parsed(**({"points": 1, "metadata": {"a": 1}} | others)).body_sha256 != first.body_sha256


def test_the_form_of_the_text_does_not_matter() -> None:
    """Order, white space, escapes, and by which id the user is named."""
    text = (
        b'{ "timestamp":"2026-01-10T10:30:00Z", "metadata": {"b": {"d": 1, "c": 2}, "a": "\\u00fc"},\n'
        b' "userId": "028e1b3b-469e-4c98-9ca1-1ae0b5657e30", "actionType": "win", "actionId": "other" }'
    )
    other = parse_bulk_action(text)
    assert isinstance(other, BulkAction)
    assert other.body_sha256 == parsed(metadata={"a": "ü", "b": {"c": 2, "d": 1}}).body_sha256


@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=5)), max_size=5), st.booleans())
def test_every_action_is_divided(actions: list[dict[str, str]], ascii_only: bool) -> None:
    """Each text is exactly one action's."""
    parts = split_actions(json.dumps({"actions": actions}, ensure_ascii=ascii_only).encode())
    assert isinstance(parts, list)
    assert [json.loads(part) for part in parts] == actions


@given(st.binary(max_size=200))
def test_no_body_raises(body: bytes) -> None:
    """Whatever is sent in the place of a list, or of an action."""
    assert isinstance(split_actions(body), list | Refusal)
    assert isinstance(split_actions(b'{"actions": [' + body + b"]}"), list | Refusal)
    assert isinstance(parse_bulk_action(body), BulkAction | Refusal)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys((*ACTION, "metadata", "points", "userId"), JSON_VALUES)))
def test_no_action_raises(action: dict[str, Any]) -> None:
    """Members of any type, or absent."""
    assert isinstance(parse_bulk_action(json.dumps(ACTION | action).encode()), BulkAction | Refusal)


@pytest.mark.parametrize(
    ("others", "points"),
    [
        ({"points": 1}, 1),
        ({"points": 500}, 500),
        ({"points": 501}, None),
        ({}, None),
        ({"actionType": "goal"}, 10),
        ({"actionType": "goal", "points": 10}, None),
        ({"actionType": "unknown"}, None),
    ],
)
def test_who_names_the_points(others: dict[str, Any], points: int | None) -> None:
    """The request where the type says so, else the rule; never both."""
    found = bulk_points(parsed(**others), RULES, NOW_MS)
    assert (None if isinstance(found, Refusal) else found) == points


@pytest.mark.parametrize("late_ms", [-60_001, 300_001])
def test_the_time_is_compared_before_the_rule(late_ms: int) -> None:
    """As for a user's own action."""
    assert bulk_points(parsed(actionType="unknown"), RULES, NOW_MS + late_ms) is TOO_OLD_OR_AHEAD
