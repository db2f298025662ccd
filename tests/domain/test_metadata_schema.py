"""Metadata against the fields that an action type names."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain.metadata_schema import MetadataField, check_metadata

FIELDS = {
    "score": MetadataField("int", required=True, minimum=0, maximum=10),
    "share": MetadataField("number", maximum=1.5),
    "level": MetadataField("text", min_length=2, max_length=4),
    "side": MetadataField("text", one_of=["left", "right"]),
    "won": MetadataField("bool"),
}


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"score": 0}, None),
        ({"score": 10, "share": 1.5, "level": "ab", "side": "left", "won": False, "more": [1]}, None),
        ({"score": 1, "share": 1, "level": None}, None),
        ({}, "score is required"),
        ({"score": None}, "score is required"),
        ({"score": 11}, "score must be at most 10"),
        ({"score": -1}, "score must be at least 0"),
        ({"score": 10**400}, "score must be at most 10"),
        ({"score": 1.0}, "score must be a whole number"),
        ({"score": True}, "score must be a whole number"),
        ({"score": "1"}, "score must be a whole number"),
        ({"score": 1, "share": "1"}, "share must be a number"),
        ({"score": 1, "share": 1.6}, "share must be at most 1.5"),
        ({"score": 1, "level": "a"}, "level must have at least 2 characters"),
        ({"score": 1, "level": "abcde"}, "level must have at most 4 characters"),
        ({"score": 1, "level": ["ab"]}, "level must be a text"),
        ({"score": 1, "side": "up"}, "side must be one of left, right"),
        ({"score": 1, "won": 1}, "won must be true or false"),
    ],
)
def test_a_field_has_its_type_and_bounds(metadata: dict[str, Any], message: str | None) -> None:
    """The first fault is named; null is as good as absent."""
    fault = check_metadata(metadata, FIELDS)
    assert (fault and f"{fault.field} {fault.message}") == message


def test_unknown_fields_can_be_refused() -> None:
    """Only the named ones pass; the name of a client's own field is cut in the message."""
    assert check_metadata({"score": 1, "x": 1}, FIELDS) is None
    fault = check_metadata({"score": 1, "x" * 1000: 1}, FIELDS, known=FIELDS)
    assert fault is not None
    assert fault.field == "x" * 50


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=2)
)


@given(st.dictionaries(st.sampled_from([*FIELDS, "other"]), anything))
def test_nothing_raises(metadata: dict[str, Any]) -> None:
    """Whatever JSON holds is accepted or named as a fault of a field that is there or missing."""
    fault = check_metadata(metadata, FIELDS, known=FIELDS)
    assert fault is None or fault.field in {*FIELDS, "other"}
