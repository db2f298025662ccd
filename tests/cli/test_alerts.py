"""`scoreboard alerts …`: what is listed, tried again and tested, and that no secret is printed."""

from collections.abc import Callable
from uuid import uuid4

import pytest
from click.testing import CliRunner

from scoreboard.cli.main import cli
from tests.cli.running import Result, execute, unchanged_logging

URL = "https://chat.example/hooks/private-part"


@pytest.fixture
def alerts(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs `scoreboard alerts …` on an empty outbox; settings as `alerts__url="…"`."""
    execute(environment, "TRUNCATE outgoing_messages")

    def run(*arguments: str, **settings: str) -> Result:
        given = {f"SCOREBOARD_{name.upper()}": value for name, value in settings.items()}
        with monkeypatch.context() as patched, unchanged_logging():
            for name, value in (environment | given).items():
                patched.setenv(name, value)
            done = CliRunner().invoke(cli, ["alerts", *arguments])
        text = str(done.exception) if done.exception and not isinstance(done.exception, SystemExit) else ""
        return Result(done.exit_code, done.stdout, done.stderr + text)

    return run


def test_a_test_message_is_listed_and_tried_again(alerts: Callable[..., Result], environment: dict[str, str]) -> None:
    """It waits for a node; when it is dead, it is listed as that, and can be tried again."""
    assert alerts("list").out == ""
    assert alerts("test", alerts__url=URL).out.startswith("a test message is in the outbox")
    (line,) = alerts("list").out.splitlines()
    assert line.endswith("Z  pending  0  A test of scoreboard's alerts")
    assert alerts("list", "--dead").out == ""
    change = "UPDATE outgoing_messages SET state = 'dead', tries = 12, last_error = E'no \\x1b answer' RETURNING 1"
    execute(environment, change)
    (dead,) = alerts("list", "--dead").out.splitlines()
    assert dead.endswith("dead  12  A test of scoreboard's alerts (no \\x1b answer)")
    assert alerts("retry", dead.split()[0]).out == "1 messages are tried again\n"
    assert alerts("retry").out == "0 messages are tried again\n"
    assert alerts("list", "--dead").out == ""


@pytest.mark.parametrize(
    ("arguments", "settings", "code", "words"),
    [
        (("retry", str(uuid4())), {}, 1, "there is no dead message"),
        (("retry", "all"), {}, 2, "is not an id"),
        (("test",), {}, 1, "alerts.url is not set"),
        (("test",), {"alerts__url": "http://chat.example/private-part"}, 1, "alerts.url: must begin with https://"),
        (("test",), {"alerts__url": "https://me:private-part@chat.example/"}, 1, "must not contain a user name"),
    ],
)
def test_what_is_refused(
    alerts: Callable[..., Result], arguments: tuple[str, ...], settings: dict[str, str], code: int, words: str
) -> None:
    """In one line that says why, without the URL: whoever has that can post to the chat."""
    done = alerts(*arguments, **settings)
    assert (done.code, done.out) == (code, "")
    assert words in done.err
    assert "private-part" not in done.err
