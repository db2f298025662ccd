"""The list of ASVS requirements: each is once there, and has an answer; the tests that it names exist."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / ".github/ASVS.md").read_text()
ENTRY = re.compile(
    r"^- \*\*v5\.0\.0-(\d+\.\d+\.\d+)\*\* \(level ([12])\): ([^*]+?)\. (Met|Not applicable|Not met): (.+)\.$"
)
BLOCK = re.compile(r"^- \*\*v5.*?(?=^- |^#|\Z)", re.MULTILINE | re.DOTALL)
ENTRIES = [ENTRY.match(" ".join(block.split())) for block in BLOCK.findall(TEXT)]
TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
CHAPTERS = 17
REQUIREMENTS = 240  # of levels 1 and 2 there are more than that


def test_every_requirement_has_one_answer() -> None:
    """In the form that the other tests read, in the order of the standard."""
    assert None not in ENTRIES
    numbers = [tuple(int(part) for part in entry[1].split(".")) for entry in ENTRIES if entry]
    assert numbers == sorted(set(numbers))
    assert {number[0] for number in numbers} == set(range(1, CHAPTERS + 1))
    assert len(numbers) > REQUIREMENTS


def test_the_counts_are_those_of_the_list() -> None:
    """The sentence above the list says how many are met."""
    for level in "12":
        counts = Counter(entry[4] for entry in ENTRIES if entry and entry[2] == level)
        assert (
            f"of level {level}, {counts['Met']} are met, {counts['Not applicable']} not applicable and "
            f"{counts['Not met']} not met"
        ) in " ".join(TEXT.split())


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry], ids=lambda entry: str(entry[1]))
def test_what_is_met_names_a_test_that_exists(entry: re.Match[str]) -> None:
    """A file of tests, or one test of it; what is not met names a reason and no test."""
    named = TEST.findall(entry[5])
    assert bool(named) == (entry[4] == "Met")
    for file, test in named:
        source = (ROOT / file).read_text()
        assert re.search(rf"^(?:async )?def {test or 'test_'}", source, re.MULTILINE), (file, test)
