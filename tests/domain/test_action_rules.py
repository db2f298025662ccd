"""Which rules of action types can be loaded, and what a bad one is told."""

import re
from pathlib import Path

import pytest

from scoreboard.domain.action_rules import read_rules
from scoreboard.domain.errors import SettingsError


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


WHOLE = """\
[race]
title = "Race"
points = 10
unknown_metadata = false
daily_cap = { points = 100, count = 20 }
started = { minimum = 5, expires = 600 }
webhook = { url = "https://game.example/check", secret = "0123456789abcdef" }
evidence = { retention = 10 }
hold_days = 3
undecided = "approve"

[race.metadata]
lap = { type = "int", required = true, minimum = 1, maximum = 9 }
car = { type = "text", max_length = 20, one_of = ["red", "blue"] }
"""


def test_a_type_may_have_every_check() -> None:
    """All keys together; the webhook's secret is not in what logs and errors could show."""
    rule = read_rules(WHOLE)["race"]
    assert rule.is_held
    assert rule.is_checked
    assert rule.metadata["lap"].required
    assert "0123456789abcdef" not in repr(rule)
    assert not read_rules('[a]\ntitle = "A"\npoints = 1')["a"].is_checked


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("daily_cap = {}", "daily_cap: needs points or count"),
        ("daily_cap = { points = 9 }", "daily_cap.points: is below 10"),
        ("daily_cap = { count = -1 }", "daily_cap.count: must be 1 to"),
        ("daily_cap = { cuont = 1 }", "daily_cap.cuont: unknown key; did you mean count?"),
        ("started = { minimum = 5, expires = 5 }", "started: minimum must be"),
        ("started = { expires = 86401 }", "started: minimum must be"),
        ("started = { minimum = nan }", "started: minimum must be"),
        ("started = 5", "started: must be a table, got int"),
        ('webhook = { url = "https://a.example/" }', "webhook: secret is missing"),
        ('webhook = { url = "https://a.example/", secret = "short" }', "webhook.secret: must have 16 to 512"),
        ('webhook = { url = "bad", secret = "0123456789abcdef" }', "webhook.url: is bad"),
        ("evidence = { retention = 0 }", "evidence.retention: must be 1 to 365 days"),
        ("hold = true\nhold_days = 91", "hold_days: must be 1 to 90 days"),
        ("hold_days = 8", "hold_days: changes nothing without hold"),
        ('undecided = "approve"', "undecided: changes nothing without hold"),
        ('hold = true\nundecided = "maybe"', "undecided: Invalid enum value 'maybe'"),
        ("trusted = true\nhold = true", "hold: changes nothing with trusted"),
        ("trusted = true\nstarted = {}", "started: changes nothing with trusted"),
        ('metadata = { lap = { type = "integer" } }', "metadata.lap.type: Invalid enum value 'integer'"),
        ("metadata = { lap = {} }", "metadata.lap: type is missing"),
        (
            'metadata = { lap = { type = "int", mininum = 1 } }',
            "metadata.lap.mininum: unknown key; did you mean",
        ),
        ('metadata = { lap = { type = "text", minimum = 1 } }', "metadata.lap.minimum: is a number, and for fields"),
        ('metadata = { lap = { type = "int", max_length = 1 } }', "metadata.lap.max_length: is 0 or more, and for"),
        ('metadata = { lap = { type = "int", minimum = 2, maximum = 1 } }', "metadata.lap.minimum: must not be above"),
        (
            'metadata = { lap = { type = "int", one_of = [1, "a"] } }',
            "metadata.lap.one_of: must have values of type int",
        ),
        ('metadata = { lap = { type = "int", one_of = [] } }', "metadata.lap.one_of: must have 1 to 100 values"),
        ('difficulty = { a = 1.0 }\nmetadata = { difficulty = { type = "text" } }', "metadata.difficulty: has a rule"),
    ],
)
def test_a_bad_check_names_its_key(lines: str, message: str) -> None:
    """One line with the action, the key, the file and the line."""
    text = f'[b]\ntitle = "B"\npoints = 1\n[a]\ntitle = "A"\npoints = 10\n{lines}\n'
    with pytest.raises(SettingsError) as raised:
        read_rules(text, "f", lambda url: "is bad" if url == "bad" else None)
    assert str(raised.value).startswith(f"actions.a.{message}")
    assert str(raised.value).endswith(f"(file f, line {6 + len(lines.splitlines())})")
    assert "0123456789abcdef" not in str(raised.value)


def test_the_readmes_example_can_be_read() -> None:
    """Whoever copies it has a type that works."""
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    (example,) = re.findall(r"```toml\n(\[boss_fight\].*?)```", readme, re.DOTALL)
    rule = read_rules(example)["boss_fight"]
    assert rule.webhook is not None
    assert rule.started is not None
    assert rule.daily_cap is not None
    assert not rule.unknown_metadata
