"""The command line: exit codes, and the line for an expected failure."""

import errno
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from scoreboard.cli import main as cli
from scoreboard.domain.errors import SettingsError, StartError, StorageUnavailable


def outcome(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str]:
    """Exit code and standard error of the whole command line."""
    monkeypatch.setattr("sys.argv", ["scoreboard", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ("verify",),
        ("audit", "export"),
        ("rebuild-board",),
        ("users", "create", "a", "a@b.example"),
        ("users", "role", "a", "viewer"),
        ("users", "tokens", "--count", "1", "--output", "-"),
        ("keys", "rotate"),
        ("keys", "revoke", "1"),
        ("keys", "list"),
        ("alerts", "list"),
        ("alerts", "retry"),
        ("alerts", "test"),
        ("server-keys", "create", "a", "--scope", "read"),
        ("server-keys", "rotate", "a"),
        ("server-keys", "revoke", "a"),
        ("server-keys", "list"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_mistyped_data_folder_stays_absent(
    words: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Commands that need a database make none: one line says so, exit 2, and there is no folder afterwards."""
    monkeypatch.setattr("sys.stdin", None)
    code, err = outcome(monkeypatch, capsys, *words, "--data-dir", str(tmp_path / "typo"))
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"scoreboard: there is no database in the data folder {tmp_path / 'typo'}: ")
    assert not (tmp_path / "typo").exists()


def test_a_data_folder_that_cannot_be_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A file in its place is one line and exit 2."""
    (tmp_path / "file").touch()
    code, err = outcome(monkeypatch, capsys, "migrate", "--data-dir", str(tmp_path / "file" / "data"))
    assert (code, err.count("\n")) == (2, 1)
    assert "can't be used" in err


def test_a_wrong_setting(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that names the key, exit 2."""
    monkeypatch.setenv("SCOREBOARD_SERVER__PORTT", "1")
    code, err = outcome(monkeypatch, capsys, "verify")
    assert (code, err.count("\n")) == (2, 1)
    assert "server.portt" in err


@pytest.mark.parametrize(
    ("command", "option"),
    [
        *(("serve", option) for option in ("--actions", "--config", "--data-dir")),
        *(("check-config", option) for option in ("--actions", "--config")),
        *(("verify", option) for option in ("--config", "--data-dir")),
        ("keys new", "--folder"),
    ],
)
def test_an_empty_path_is_refused(
    command: str, option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is no present folder: what a script has put in its place is missing."""
    assert outcome(monkeypatch, capsys, *command.split(), option, "") == (
        2,
        f"scoreboard: {option}: must not be empty\n",
    )


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (StartError("no\nway"), 2, "scoreboard: no way\n"),
        (ExceptionGroup("", [ExceptionGroup("", [SettingsError("a key")])]), 2, "scoreboard: a key\n"),
        (
            ExceptionGroup("", [StorageUnavailable("redis", "gone"), StorageUnavailable("redis", "gone")]),
            2,
            "scoreboard: redis: gone\n",
        ),
        (BaseExceptionGroup("", [SystemExit(1)]), 1, ""),
        (BaseExceptionGroup("", [SystemExit(143)]), 143, ""),
        (BaseExceptionGroup("", [KeyboardInterrupt()]), 130, ""),
        (BaseExceptionGroup("", [StartError("first"), SystemExit(1)]), 2, "scoreboard: first\n"),
    ],
)
def test_what_is_expected_is_one_line(
    raised: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """However deep nurseries have wrapped it: one line, and an exit code; an exit that was asked for passes."""

    def fail() -> None:
        raise raised

    monkeypatch.setattr(cli, "cli", fail)
    assert outcome(monkeypatch, capsys) == (code, line)


@pytest.mark.parametrize("raised", [ValueError("a bug"), ExceptionGroup("", [StartError("told"), ValueError("a bug")])])
def test_a_bug_shows_itself(raised: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody expected is raised as it is, also beside something expected."""

    def fail() -> None:
        raise raised

    monkeypatch.setattr(cli, "cli", fail)
    with pytest.raises(type(raised)) as caught:
        cli.main()
    assert caught.value is raised


def test_standard_error_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a closed standard error nothing is printed; the exit code is the same."""

    def fail() -> None:
        raise StartError("nobody reads this")

    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(cli, "cli", fail)
    monkeypatch.setattr("click.echo", broken)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2


def test_the_signals_that_end_a_node() -> None:
    """SIGTERM, Ctrl-C and a closed terminal; not the last where it is ignored, as under nohup."""
    from scoreboard.runtime.process import ending_signals

    former = signal.getsignal(signal.SIGHUP)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        assert ending_signals() == [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        assert ending_signals() == [signal.SIGTERM, signal.SIGINT]
    finally:
        signal.signal(signal.SIGHUP, former)
