"""`scoreboard keys new`: what it prints starts a node in production, in each of the three forms."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from scoreboard.cli.main import cli
from scoreboard.domain.errors import SettingsError, StartError
from scoreboard.settings.model import Settings, load_settings

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
