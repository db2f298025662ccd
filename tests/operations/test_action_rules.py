"""The actions file as the operator has it: where it is read from, and what is wrong with it in one line."""

import os
from pathlib import Path

import pytest

from scoreboard.domain.errors import SettingsError
from scoreboard.operations.action_rules import ACTIONS_FILE_BYTES, load_rules
from scoreboard.settings.model import load_settings

OWN = '[plant_tree]\ntitle = "Pflanze einen Baum"\npoints = 5\n'


def load(file: Path | str) -> list[str]:
    return list(load_rules(load_settings(flags={"actions.file": str(file)}, environ={}, needs_stores=False)))


def test_the_file_of_the_settings_is_read(tmp_path: Path) -> None:
    """The packaged file is read unless another is named; a file may begin with a byte order mark."""
    assert "quiz_complete" in load("")
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / "own.toml").write_text(OWN, encoding)
        assert load(tmp_path / "own.toml") == ["plant_tree"]


def test_a_file_that_can_not_be_read_is_an_error_of_one_line(tmp_path: Path) -> None:
    """A file that is not there, a folder, a device, a pipe, a huge file, other encodings: each names the file."""
    huge, latin, utf16, pipe = tmp_path / "huge", tmp_path / "latin", tmp_path / "utf16", tmp_path / "pipe"
    huge.write_bytes(b"#" * (ACTIONS_FILE_BYTES + 1))
    latin.write_bytes(OWN.replace("Pflanze", "Gie\u00dfe").encode("latin-1"))
    utf16.write_bytes(OWN.encode("utf-16"))
    os.mkfifo(pipe)
    for file, why in (
        (tmp_path / "none", "can't be read: No such file or directory"),
        (tmp_path, "is not a file"),
        (Path("/dev/zero"), "is not a file"),
        (pipe, "is not a file"),
        (huge, "more than 65536 bytes"),
        (latin, "line 2"),
        (utf16, "not UTF-8 text"),
    ):
        with pytest.raises(SettingsError, match=r"^actions[^\n]*$") as raised:
            load(file)
        assert str(file) in str(raised.value)
        assert why in str(raised.value)


def test_a_webhook_is_asked_by_https_alone(tmp_path: Path) -> None:
    """Plain http, another scheme, credentials in the URL: one line that names action, key and line. A host of
    `outgoing.private_hosts` may be asked without TLS."""
    file = tmp_path / "own.toml"
    for url, why in (
        ("http://game.example/", "must begin with https://"),
        ("ftp://game.example/", "must begin with https://"),
        ("https://user:pass@game.example/", "must not contain a user name"),
        ("game.example", "must look like"),
    ):
        file.write_text(f'{OWN}webhook = {{ url = "{url}", secret = "0123456789abcdef" }}\n')
        with pytest.raises(SettingsError, match=rf"^actions.plant_tree.webhook.url: {why}[^\n]*, line 4\)$"):
            load(file)
    file.write_text(f'{OWN}webhook = {{ url = "http://referee/", secret = "0123456789abcdef" }}\n')
    flags = {"actions.file": str(file), "outgoing.private_hosts": ["referee"]}
    assert "plant_tree" in load_rules(load_settings(flags=flags, environ={}, needs_stores=False))
