"""Where a key stands in a TOML text, and how keys and reasons are shown in a message."""

import pytest

from scoreboard.domain.toml_lines import (
    MAX_KEY_CHARACTERS,
    MAX_REASON_CHARACTERS,
    line_of,
    shown_keys,
    shown_reason,
    table_before,
)

TEXT = '''[task]
title = "A task"
points = 10

[task.time]
bonus = 2

[other]
note = """
points = 1
"""
points = 3
'''


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (("task",), 1),
        (("task", "points"), 3),
        (("task", "time"), 5),
        (("task", "time", "bonus"), 6),
        (("task", "time", "missing"), 5),
        (("other", "points"), 12),
        (("missing",), 1),
    ],
)
def test_a_line_is_that_of_the_deepest_key_that_is_there(keys: tuple[str, ...], line: int) -> None:
    """A key in a text of several lines is no key; one that is missing has the line of its table."""
    assert line_of(TEXT, keys) == line


def test_the_table_before_a_faulty_line_is_named() -> None:
    """The last header above it; nothing when there is none."""
    assert table_before("[a]\nx = 1\n[b.c]\ny = =\n", 4) == ".b.c"
    assert table_before("y = =\n", 1) == ""


def test_keys_are_shown_in_one_short_line() -> None:
    """A line break is escaped, and a long key is cut."""
    assert shown_keys(("a", "b\nc")) == "a.'b\\nc'"
    assert len(shown_keys(("x" * 1000,))) == MAX_KEY_CHARACTERS


def test_a_long_reason_loses_its_middle() -> None:
    """Its beginning and its end say most."""
    reason = shown_reason("a" * 1000 + "z")
    assert reason.startswith("aaa")
    assert reason.endswith("z")
    assert len(reason) <= MAX_REASON_CHARACTERS + 3
