"""What an action is worth, and which rules can be loaded at all."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain.actions import Action
from scoreboard.domain.errors import Refusal, SettingsError
from scoreboard.domain.scoring import MAX_POINTS, award, max_points, read_rules

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


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "names no action type"),
        ("[a", "actions"),
        ('[a]\ntitle = "A"', "points"),
        ('[a]\ntitle = "A"\npoints = 0', "actions.a.points"),
        ('[a]\ntitle = "A"\npoints = 100001', "actions.a.points"),
        (f'[a]\ntitle = "A"\npoints = 1{"0" * 400}', "points"),
        ('[a]\ntitle = "A"\npoints = 60000\ndifficulty = { hard = 2.0 }', "actions.a.points"),
        ('[a]\ntitle = "A"\npoints = 1\ncooldown = -1', "actions.a.cooldown"),
        ('[a]\ntitle = "A"\npoints = 1\ndifficulty = { hard = 0 }', "actions.a.difficulty"),
        ('[a]\ntitle = "A"\npoints = 1\ndifficulty = { hard = nan }', "actions.a.difficulty"),
        ('[a]\ntitle = "A"\npoints = 1\ntime = { minimum = 5, maximum = 4 }', "actions.a.time"),
        ('[a]\ntitle = "A"\npoints = 1\ntime = { bonus = inf }', "actions.a.time"),
        ('[a]\ntitle = "A"\npoints = 1\nprice = 2', "price"),
        ('[a]\ntitle = "A"\npoints = 1\nfree_points = true', "actions.a.free_points: needs trusted"),
        (
            '[a]\ntitle = "A"\npoints = 1\ntrusted = true\nfree_points = true\ntime = {}',
            "actions.a.free_points: the request names the points",
        ),
        (f'[{"a" * 51}]\ntitle = "A"\npoints = 1', "50 characters"),
    ],
)
def test_bad_rules_stop_the_start(text: str, named: str) -> None:
    """One line that names what is wrong."""
    with pytest.raises(SettingsError, match=named) as raised:
        read_rules(text)
    assert "\n" not in str(raised.value)


FILE = """\
# A quiz
[quiz]
title = "Quiz"
points = 10

[essay]
title = \"\"\"\\
[quiz]\"\"\"
points = 20
time = { minimum = 1, maximum = 2 }
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "points = 10",
            "points = 0",
            "actions.quiz.points: must give 1 to 100000 points, with the greatest factor and bonus (file f, line 4)",
        ),
        ("points = 10", "pionts = 10", "actions.quiz.pionts: unknown key; did you mean points? (file f, line 4)"),
        ("points = 10", "", "actions.quiz: points is missing (file f, line 2)"),
        ("points = 10", "points = 10.5", "actions.quiz.points: must be int, got float (file f, line 4)"),
        ("points = 10", "points = true", "actions.quiz.points: must be int, got bool (file f, line 4)"),
        ("points = 10", "points = 10\nbutton = 1", "actions.quiz.button: must be bool, got int (file f, line 5)"),
        (
            "points = 10",
            "points = 10\n[quiz.time]\nfast_under_second = 4",
            "actions.quiz.time.fast_under_second: unknown key; did you mean fast_under_seconds? (file f, line 6)",
        ),
        (
            "points = 10",
            "points = 10\ntime.minimum = inf",
            "actions.quiz.time: minimum must be 0 or more and not above maximum (file f, line 5)",
        ),
        (
            "points = 20",
            "points = 20\ncooldown = -1",
            "actions.essay.cooldown: must be 0 to 604800 seconds (file f, line 10)",
        ),
        (
            "maximum = 2",
            "maximum = 0",
            "actions.essay.time: minimum must be 0 or more and not above maximum (file f, line 10)",
        ),
        (
            'title = "Quiz"',
            'title = " "',
            "actions.quiz.title: must have 1 to 80 characters that can be printed, and show something (file f, line 3)",
        ),
        ('title = "Quiz"', "title = Quiz", "actions.quiz: Invalid value (file f, line 3)"),
        ("[essay]", "[quiz]", "actions.quiz: Cannot declare ('quiz',) twice (file f, line 6)"),
        (
            "[quiz]\ntitle",
            '["a\\nb"]\ntitle',
            "actions.'a\\nb': a name has 1 to 50 characters that can be printed, and shows something (file f, line 2)",
        ),
        (
            "# A quiz",
            "points = 3",
            "actions.points: must be a table: [name] in a line of its own, its settings below (file f, line 1)",
        ),
    ],
)
def test_a_fault_names_its_line(old: str, new: str, message: str) -> None:
    """One line that names the action, the key, the file and the line, whatever way the file is written in; Windows'
    line ends too."""
    assert old in FILE
    for text in (FILE.replace(old, new, 1), FILE.replace(old, new, 1).replace("\n", "\r\n")):
        with pytest.raises(SettingsError) as raised:
            read_rules(text, "f")
        assert str(raised.value) == message


@pytest.mark.parametrize("blank", ["\u3164\u2800", "\u3164", "\u2800", "\uffa0", "\u115f", "\u17b4"])
def test_what_shows_nothing_is_no_title(blank: str) -> None:
    """Blank letters alone: the button would have no text. Beside letters they may stand."""
    for text in (f'[a]\ntitle = "{blank}"\npoints = 1', f'["{blank}"]\ntitle = "A"\npoints = 1'):
        with pytest.raises(SettingsError, match=r"^actions\..*(title: must .* show|a name .* shows) something \(file"):
            read_rules(text)
    assert read_rules(f'[a]\ntitle = "A{blank}A"\npoints = 1') or blank == "\u17b4"


@pytest.mark.parametrize(
    ("time", "message"),
    [
        ("fast_under_seconds = 5", "time.fast_under_seconds: changes nothing without a bonus"),
        ("fast_under_seconds = 5, bonus = 1.0", "time.fast_under_seconds: changes nothing without a bonus"),
        ("bonus = 1.5", "time.bonus: changes nothing without fast_under_seconds"),
        ("minimum = 6, fast_under_seconds = 5, bonus = 1.5", "time.fast_under_seconds: is below minimum"),
    ],
)
def test_a_time_rule_that_can_have_no_effect_is_refused(time: str, message: str) -> None:
    """Whoever wrote it expects one."""
    with pytest.raises(SettingsError, match=rf"^actions\.a\.{re.escape(message)}[^\n]*line 4\)$"):
        read_rules(f'[a]\ntitle = "A"\npoints = 1\ntime = {{ {time} }}')
    assert read_rules('[a]\ntitle = "A"\npoints = 1\ntime = { minimum = 5, fast_under_seconds = 5, bonus = 0.5 }')


def test_long_keys_are_shortened_where_they_are_told() -> None:
    """As a name, as a key, in what is wrong with the syntax: a message stays a line that can be read."""
    long = "x" * 5000
    for text in (
        f'[{long}]\ntitle = "A"\npoints = 1',
        f'[a]\ntitle = "A"\npoints = 1\n{long} = 1',
        f"[{long}]\n[{long}]",
        f"[{long}]\ntitle = A",
    ):
        with pytest.raises(SettingsError, match="xxx") as raised:
            read_rules(text)
        assert len(str(raised.value)) < 600


def test_a_file_has_bounds() -> None:
    """A hundred action types; what is nested deeper than this Python can read is refused in one line too."""
    types = [f'[a{number}]\ntitle = "A"\npoints = 1\n' for number in range(101)]
    assert len(read_rules("".join(types[:100]))) == 100
    for text in ("".join(types), f"a = {'[' * 5000}"):
        with pytest.raises(SettingsError, match=r"^actions: [^\n]*$"):
            read_rules(text)
