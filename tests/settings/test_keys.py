"""Development keys: made once, kept for their owner alone."""

import json
import threading
from pathlib import Path

import pytest

from scoreboard.domain.errors import StartError
from scoreboard.settings.keys import KEYS_FILE, Keys, development_keys


def test_made_once_and_kept(tmp_path: Path) -> None:
    """The second start reads the keys that the first one made; nobody else may read the file."""
    first = development_keys(tmp_path / "data")
    assert development_keys(tmp_path / "data") == first
    assert [len(key) for key in (*first.signing.values(), *first.master.values())] == [32, 32]
    assert first.current_signing in first.signing
    assert first.current_master in first.master
    assert [(path.name, path.stat().st_mode & 0o777) for path in (tmp_path / "data").iterdir()] == [(KEYS_FILE, 0o600)]
    assert development_keys(tmp_path / "other") != first


def test_processes_at_once_agree(tmp_path: Path) -> None:
    """Whoever loses the race reads the winner's keys."""
    found: list[Keys] = []
    barrier = threading.Barrier(8)

    def start() -> None:
        barrier.wait()
        found.append(development_keys(tmp_path))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [found[0]] * 8
    assert [path.name for path in tmp_path.iterdir()] == [KEYS_FILE]


def test_an_open_file_is_closed_again(tmp_path: Path) -> None:
    """A key file that others could read is given back to its owner."""
    keys = development_keys(tmp_path)
    (tmp_path / KEYS_FILE).chmod(0o644)
    assert development_keys(tmp_path) == keys
    assert (tmp_path / KEYS_FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"signing": {"a": "x"}, "master": {"1": "x"}, "current_signing": "a"}']
)
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    """Damaged keys stop the start; new ones in their place would log everybody out unasked."""
    (tmp_path / KEYS_FILE).write_text(content)
    with pytest.raises(StartError, match=r"keys\.json is damaged"):
        development_keys(tmp_path)


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    """A data folder that can't be made is a clear line."""
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="can't be made or read"):
        development_keys(tmp_path / "file" / "data")


def test_keys_do_not_print(tmp_path: Path) -> None:
    """The repr of keys shows names, no key."""
    keys = development_keys(tmp_path)
    assert not any(repr(key)[2:-1] in repr(keys) for key in (*keys.signing.values(), *keys.master.values()))


def test_the_key_of_the_log_is_kept_too(tmp_path: Path) -> None:
    """A file that is older than the log has none: its key is the same at every start all the same."""
    keys = development_keys(tmp_path)
    assert keys.log[keys.current_log] == development_keys(tmp_path).log[keys.current_log]
    assert str(keys.log[keys.current_log]) not in repr(keys)
    file = tmp_path / KEYS_FILE
    old = json.loads(file.read_text())
    del old["log"]
    file.write_text(json.dumps(old))
    derived = development_keys(tmp_path)
    assert derived == development_keys(tmp_path)
    assert derived.log != keys.log
    assert len(derived.log[derived.current_log]) == 32
