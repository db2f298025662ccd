"""The times of a session fit one another, on both sides."""

import re
from pathlib import Path

import pytest

import scoreboard
from scoreboard.client import backoff
from scoreboard.domain.sessions import CLIENT_ANSWER_SECONDS, CLIENT_PAUSE_SECONDS, REFRESH_GRACE_SECONDS

STATIC = Path(scoreboard.__file__).parent / "web" / "static"


def milliseconds(file: str, name: str) -> int:
    """A constant of a script."""
    found = re.search(rf"const {name} = ([0-9_]+);", (STATIC / file).read_text())
    assert found, f"{file} has no constant {name}"
    return int(found[1])


def test_a_client_that_lost_an_answer_asks_again_within_the_grace() -> None:
    """It waits for the answer, pauses, and its second try may take as long as the first; the Python client never pauses
    longer."""
    assert REFRESH_GRACE_SECONDS >= 2 * CLIENT_ANSWER_SECONDS + CLIENT_PAUSE_SECONDS
    assert backoff.MAX_SECONDS <= CLIENT_PAUSE_SECONDS


@pytest.mark.parametrize(
    ("file", "name", "longest"),
    [
        ("scoreboard.js", "ANSWER_TIMEOUT", CLIENT_ANSWER_SECONDS),
        ("account.js", "RENEW_RETRY_DELAY", CLIENT_PAUSE_SECONDS),
    ],
)
def test_the_browsers_waits_fit_the_grace(file: str, name: str, longest: float) -> None:
    """The times in the scripts are at most those from which the grace is computed."""
    assert 0 < milliseconds(file, name) <= longest * 1000
