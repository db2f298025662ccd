"""`scoreboard keys …`: what `new` prints starts a node in production, in each of the three forms; rotation, revocation
and the list, by the commands."""

import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from scoreboard.cli.main import cli
from scoreboard.domain.errors import SettingsError, StartError
from scoreboard.settings.model import Settings, load_settings
from tests.cli.running import Result, execute, unchanged_logging

PRODUCTION = {
    "SCOREBOARD_ENVIRONMENT": "production",
    "SCOREBOARD_POSTGRES__URL": "postgresql://db/x",
    "SCOREBOARD_REDIS__URL": "redis://cache",
    "SCOREBOARD_SERVER__PUBLIC_URL": "https://board.example",
}


def printed(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["keys", "new", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def from_toml(folder: Path) -> Settings:
    (folder / "keys.toml").write_text(printed())
    return load_settings(folder / "keys.toml", {}, PRODUCTION)


def from_variables(folder: Path) -> Settings:
    variables = dict(line.split("=", 1) for line in printed("--env").splitlines())
    return load_settings(None, {}, PRODUCTION | variables)


def from_folder(folder: Path) -> Settings:
    files = [Path(line) for line in printed("--folder", str(folder / "secrets")).splitlines()]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    return load_settings(None, {}, PRODUCTION | {"SCOREBOARD_SECRETS_DIR": str(folder / "secrets")})


@pytest.mark.parametrize("settings_of", [from_toml, from_variables, from_folder])
def test_new_keys_are_what_production_needs(settings_of: Callable[[Path], Settings], tmp_path: Path) -> None:
    """With them, two addresses and the public URL, production's settings are complete; each call makes other keys."""
    keys = [
        settings_of(tmp_path / name).security.keys(tmp_path / "none")
        for name in ("one", "two")
        if not (tmp_path / name).mkdir()
    ]
    for made in keys:
        assert list(made.master) == [made.current_master] == [1]
        assert list(made.signing) == [made.current_signing]
        assert {len(key) for key in (*made.master.values(), *made.signing.values())} == {32}
    assert keys[0].master != keys[1].master
    assert keys[0].signing != keys[1].signing
    assert not (tmp_path / "none").exists()


def test_keys_that_are_there_are_kept(tmp_path: Path) -> None:
    """A folder that has keys is left as it is: whoever lost them would lock everybody out."""
    printed("--folder", str(tmp_path))
    before = {file.name: file.read_text() for file in tmp_path.iterdir()}
    with pytest.raises(StartError, match="has keys already"):
        CliRunner().invoke(cli, ["keys", "new", "--folder", str(tmp_path)], catch_exceptions=False)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == before


def test_a_new_signing_key_stands_beside_the_present_one(tmp_path: Path) -> None:
    """The setting that says which one signs must come with it; both verify then. Printed, it is one key alone."""
    folder = tmp_path / "secrets"
    before = from_folder(tmp_path).security
    (kid,) = before.signing_keys
    (added,) = (Path(line) for line in printed("--signing", "--folder", str(folder)).splitlines())
    assert stat.S_IMODE(added.stat().st_mode) == 0o600
    variables = PRODUCTION | {"SCOREBOARD_SECRETS_DIR": str(folder)}
    with pytest.raises(SettingsError, match="current_signing_key: must say which"):
        load_settings(None, {}, variables)
    (folder / "security__current_signing_key").write_text(kid)
    keys = load_settings(None, {}, variables).security.keys(tmp_path / "none")
    assert (len(keys.signing), keys.current_signing, list(keys.master)) == (2, kid, [1])
    assert "master" not in printed("--signing")
    assert printed("--signing", "--env").startswith("SCOREBOARD_SECURITY__SIGNING_KEYS__k")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """It is one line."""
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="can't be written"):
        CliRunner().invoke(cli, ["keys", "new", "--folder", str(tmp_path / "file" / "secrets")], catch_exceptions=False)


@pytest.fixture
def keys(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs `scoreboard keys …` on a database without rotations."""
    execute(environment, "TRUNCATE master_keys")

    def run(*arguments: str) -> Result:
        with monkeypatch.context() as patched, unchanged_logging():
            for name, value in environment.items():
                patched.setenv(name, value)
            done = CliRunner().invoke(cli, ["keys", *arguments])
        return Result(done.exit_code, done.stdout, done.stderr)

    return run


def test_rotate_list_and_revoke(keys: Callable[..., Result]) -> None:
    """The list tells states and times, and no key."""
    assert keys("list").out == "1  current  of the settings\n"
    rotated = keys("rotate")
    assert (rotated.code, rotated.err) == (0, "")
    assert rotated.out == "version 2 is used in 10 s; older ones are valid for 1440 minutes more\n"
    first, second = keys("list").out.splitlines()
    assert re.fullmatch(r"1  current  of the settings, valid until [0-9T:-]+Z", first)
    assert re.fullmatch(r"2  waiting  made [0-9T:-]+Z", second)
    assert keys("revoke", "1").out == "version 1 is revoked; version 3 is used from now on\n"
    assert keys("revoke", "1").out == "version 1 was revoked before\n"
    assert [line.split()[1] for line in keys("list").out.splitlines()] == ["revoked", "waiting", "current"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("revoke", "7"), 1, "there is no version 7"),
        (("revoke", "0"), 2, "0 is not in the range"),
        (("revoke", "99999999999999999999"), 2, "not in the range"),
        (("rotate", "--overlap-minutes", "5"), 2, "must be at least 16"),
        (("rotate", "--overlap-minutes", "-1"), 2, "not in the range"),
    ],
)
def test_what_is_refused(keys: Callable[..., Result], arguments: tuple[str, ...], code: int, words: str) -> None:
    """An overlap shorter than an access token's life would lose actions; a version that is not there is named."""
    done = keys(*arguments)
    assert (done.code, done.out) == (code, "")
    assert words in done.err
    assert keys("list").out == "1  current  of the settings\n"
