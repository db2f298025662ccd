"""The settings of a command, and the command line in this process."""

import sys
from collections.abc import Iterator
from unittest.mock import patch

import pytest

from scoreboard.cli import main as cli
from scoreboard.embedded.stack import Endpoints
from scoreboard.security import passwords
from tests.cli.running import Command, Result, Stream, execute, unchanged_logging
from tests.conftest import database, resp
from tests.operations.people import CHEAP


@pytest.fixture(scope="module")
def environment(
    embedded_servers: Endpoints, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Settings that lead to a database of this module's."""
    assert resp(embedded_servers.redis_url, "FLUSHALL") == b"+OK"
    with database(embedded_servers.postgres_url, migrated_template) as url:
        yield {
            "SCOREBOARD_POSTGRES__URL": url,
            "SCOREBOARD_REDIS__URL": embedded_servers.redis_url,
            "SCOREBOARD_EMBEDDED__DATA_DIR": str(tmp_path_factory.mktemp("keys")),
        }


@pytest.fixture
def command(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command and returns its result. The database has no users at first."""
    execute(environment, "DELETE FROM users", "DELETE FROM username_skeletons")

    def run(*arguments: str, stdin: bytes = b"", group: str = "users") -> Result:
        given, out, err = Stream(stdin), Stream(), Stream()
        with monkeypatch.context() as patched, patch.object(passwords, "_HASHER", CHEAP), unchanged_logging():
            for name, value in environment.items():
                patched.setenv(name, value)
            for name, stream in (
                ("stdin", given),
                ("stdout", out),
                ("stderr", err),
                ("argv", ["scoreboard", group, *arguments]),
            ):
                patched.setattr(sys, name, stream)
            with pytest.raises(SystemExit) as ended:
                cli.main()
        return Result(int(ended.value.code or 0), out.text, err.text)

    return run
