"""`scoreboard check-config`, and what `serve` says of the same files: one line, before any store is started."""

import os
import subprocess
import sys
from pathlib import Path

OWN = '[plant_tree]\ntitle = "Plant a tree"\npoints = 5\n'


def run(folder: Path, *arguments: str, **settings: str) -> tuple[int, str, str]:
    """Exit code and what is said, where there is no configuration but this."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SCOREBOARD_")}
    environment |= {f"SCOREBOARD_{name.upper()}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "scoreboard", *arguments]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_good_files_are_told_in_a_line(tmp_path: Path) -> None:
    """Exit 0; nothing is made, no store is asked."""
    (tmp_path / "own.toml").write_text(OWN)
    code, said, complaints = run(tmp_path, "check-config", "--actions", "own.toml", page__accent="#ffcc00")
    assert (code, complaints) == (0, "")
    assert (
        said == "the settings are good (development); 1 action types from own.toml; "
        "accent #886d00 on light, #ffcc00 on dark\n"
    )
    assert [file.name for file in tmp_path.iterdir()] == ["own.toml"]


def test_a_bad_file_is_told_in_a_line(tmp_path: Path) -> None:
    """Exit 2 with the action, the key, the file and the line, whichever way the file is named; `serve` says the same
    and starts nothing."""
    (tmp_path / "own.toml").write_text(OWN.replace("points = 5", "pionts = 5"))
    told = "scoreboard: actions.plant_tree.pionts: unknown key; did you mean points? (file own.toml, line 3)\n"
    (tmp_path / "site.toml").write_text('[actions]\nfile = "own.toml"\n')
    assert run(tmp_path, "check-config", "--config", "site.toml") == (2, "", told)
    assert run(tmp_path, "check-config", actions__file="own.toml") == (2, "", told)
    assert run(tmp_path, "serve", "--embedded", "--actions", "own.toml") == (2, "", told)
    code, said, complaints = run(tmp_path, "check-config", page__logo="own.toml")
    assert (code, said, complaints.count("\n")) == (2, "", 1)
    assert complaints.startswith("scoreboard: page.logo: own.toml must be an SVG")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["own.toml", "site.toml"]


def test_files_of_outside_issuers_are_read(tmp_path: Path) -> None:
    """Keys and certificate authorities: both commands name the key of a file that is none, and start nothing."""
    (tmp_path / "keys.json").write_text("{}")
    table = {"identity__game__issuer": "game", "identity__game__audience": "board"}
    keys = table | {"identity__game__jwks_file": "keys.json"}
    told = "scoreboard: identity.game.jwks_file: keys.json is no key set: it has no list of keys\n"
    assert run(tmp_path, "check-config", **keys) == (2, "", told)
    assert run(tmp_path, "serve", "--embedded", **keys) == (2, "", told)
    gone = run(tmp_path, "check-config", **(keys | {"identity__game__jwks_file": "gone.json"}))
    assert gone == (2, "", "scoreboard: identity.game.jwks_file: gone.json No such file or directory\n")
    code, _, complaints = run(tmp_path, "check-config", outgoing__ca_file="keys.json")
    assert (code, complaints.startswith("scoreboard: outgoing.ca_file: keys.json has no certificates")) == (2, True)
    assert [file.name for file in tmp_path.iterdir()] == ["keys.json"]
