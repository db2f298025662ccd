"""The command line of `scripts/bench scale`, the tokens of its actors, and what it prints: `tests/bench/scale.py`."""

import time
from pathlib import Path
from uuid import uuid4

import pytest
from msgspec.structs import replace

from scoreboard.security import tokens
from scoreboard.security.signatures import action_secrets
from scoreboard.security.tokens import TokenKeys
from scoreboard.settings.model import load_settings
from tests.bench import scale, servers
from tests.bench.servers import ServerPlace
from tests.bench.test_scale_report import FEW, MANY


def test_sizes_are_measured_from_the_smallest() -> None:
    """Whatever their order on the command line; no more users act than the smallest size has, so that each size has the
    same."""
    options = scale.arguments(["--sizes", "50000,2000,50000", "--actors", "9000"])
    assert (options.sizes, options.actors, options.checkpoint) == ([2_000, 50_000], 2_000, True)


def test_settings_of_postgresql_are_pairs() -> None:
    """NAME=VALUE with commas between them."""
    options = scale.arguments(["--postgres", "shared_buffers=128MB,max_wal_size=1GB"])
    assert options.postgres == {"shared_buffers": "128MB", "max_wal_size": "1GB"}


@pytest.mark.parametrize(
    "words", [("--sizes", "many"), ("--sizes", "0"), ("--rounds", "0"), ("--postgres", "shared_buffers")]
)
def test_what_can_not_be_measured_is_refused(words: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """With exit code 2 and a line that says why, before any server is started."""
    with pytest.raises(SystemExit) as ended:
        scale.arguments(words)
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_the_server_takes_the_tokens_of_the_actors(tmp_path: Path) -> None:
    """They are signed with the keys of its own folder, for its own address, and the secret is the session's."""
    site = ServerPlace(port=8123, postgres_url="postgresql://h/d", redis_url="redis://h", folder=tmp_path)
    user = uuid4()
    (actor,) = scale.sessions(site, [user])
    settings = load_settings(environ=servers.our_environ(site))
    keys = settings.security.keys(settings.embedded.data_dir)
    verifying = TokenKeys.from_private(keys.signing, keys.current_signing)
    claims = tokens.verify(verifying, actor.token, issuer=settings.issuer, now=time.time())
    assert claims is not None
    assert claims.user == user
    assert actor.secret.encode() in action_secrets(keys.master, user, claims.sid).values()


def test_the_summary_says_what_was_measured_and_how() -> None:
    """Conditions, table and verdict; the settings that were given, and a busy machine."""
    options = scale.arguments(["--no-checkpoint", "--postgres", "shared_buffers=128MB"])
    text = scale.summary([FEW, MANY], options)
    for part in (
        "checkpoints as they come",
        "PostgreSQL with shared_buffers = 128MB",
        "| 1,000,000 |",
        "0.80 times | met",
    ):
        assert part in text
    assert "busy" not in text
    assert "The machine was busy" in scale.summary([FEW, replace(MANY, others=0.5)], options)
