"""Reads settings from TOML files, a folder of secrets, the environment and flags, and merges them into one tree that
stores the origin of each value.

Called by settings.model.load_settings, which checks the values; this file only reads each place's spelling of the keys.
Raises SettingsError when a place can't be read. Tested by tests/settings/test_model.py.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scoreboard.domain.errors import SettingsError
from scoreboard.domain.toml_lines import line_of, shown_reason

PREFIX = "SCOREBOARD_"
CONFIG = "SCOREBOARD_CONFIG"
SECRETS_DIR = "SCOREBOARD_SECRETS_DIR"
# When a service is called scoreboard, Kubernetes sets SCOREBOARD_SERVICE_HOST, SCOREBOARD_PORT_8000_TCP, … in each pod.
# They are no settings.
KUBERNETES = re.compile(r"SCOREBOARD_(\w+_)?(SERVICE_(HOST|PORT)|PORT_\d+_(TCP|UDP|SCTP))\w*")
TABLES = "identity__"  # a section of tables: identity__<name>__<key>
SECRET_BYTES = 64 * 1024  # of a secret's file; the largest secret is a PEM of some hundred bytes

Path_ = tuple[str, ...]


class Sources:
    """The merged tree, and the origin of each leaf."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {}
        self._origins: dict[Path_, str] = {}
        self._texts: dict[str, str] = {}  # of TOML files, by origin

    def put_toml(self, path: Path) -> None:
        """Sets all values of a TOML file. Raises SettingsError."""
        text = read_text(path)
        try:
            tree = tomllib.loads(text)
        except tomllib.TOMLDecodeError as exc:
            raise SettingsError(f"the configuration file {path} is not valid TOML: {shown_reason(exc)}") from exc
        except RecursionError:
            raise SettingsError(f"the configuration file {path} is nested too deeply") from None
        origin = f"file {path}"
        self._texts[origin] = text
        self.put((), tree, origin)

    def put(self, path: Path_, value: object, origin: str) -> None:
        """Sets a value, and replaces an earlier one. The items of a table are set one by one."""
        if isinstance(value, str) and len(path) > 1 and value.lstrip().startswith("{"):
            try:
                value = json.loads(value)
            except ValueError:
                # `from exc` would quote a secret
                raise SettingsError(f"{'.'.join(path)}: is not valid JSON ({origin})") from None
        if isinstance(value, Mapping):
            for key, item in value.items():
                self.put((*path, str(key)), item, origin)
            return
        node = self.tree
        for step in path[:-1]:
            inner = node.get(step)
            if not isinstance(inner, dict):
                inner = node[step] = {}
            node = inner
        node[path[-1]] = value
        self._origins[path] = origin

    def origin(self, path: Path_) -> str:
        """The origin of the value at `path`, or of a value below it; for a TOML file with the line. "" for a
        default."""
        found = self._origins.get(path) or self._origins.get(self.leaf(path), "")
        if found in self._texts:
            return f"{found}, line {line_of(self._texts[found], path)}"
        return found or (self.origin(path[:-1]) if len(path) > 1 else "")

    def leaf(self, path: Path_) -> Path_:
        """The path of the first value that was set at or below `path`."""
        return next((at for at in self._origins if at[: len(path)] == path), path)


def read_text(path: Path) -> str:
    """The text of a configuration file, without a byte order mark. Raises SettingsError."""
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the name
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise SettingsError(f"the configuration file {path} can't be read: {reason}") from exc
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise SettingsError(
            f"the configuration file {path} is not UTF-8 text; save it as UTF-8 (line {line})"
        ) from None


def read_secrets(folder: Path) -> Iterator[tuple[Path_, str, str]]:
    """Path, value and origin of each file of a secrets folder. A file is named `section__key`, or `section__key__item`
    for one item of a table, whose case is kept; of an outside issuer `identity__name__key`. Raises SettingsError."""
    try:
        for file in sorted(folder.iterdir()):
            # an orchestrator's own links (..data) begin with a dot
            if not file.name.startswith(".") and file.is_file():
                with file.open("rb") as opened:
                    value = opened.read(SECRET_BYTES).decode().strip()
                yield _path(file.name), value, f"file {file}"
    except OSError as exc:
        raise SettingsError(f"{SECRETS_DIR}: {exc.filename or folder} can't be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise SettingsError(f"{SECRETS_DIR}: a file in {folder} is not text") from exc


def read_environment(environ: Mapping[str, str]) -> Iterator[tuple[Path_, str, str]]:
    """Path, value and origin of every variable that begins with SCOREBOARD_, also of unknown ones, so that a misspelt
    name raises an error."""
    for name in sorted(environ):
        value = environ[name]
        if not name.startswith(PREFIX) or name in {CONFIG, SECRETS_DIR}:
            continue
        if "__" not in name and (KUBERNETES.fullmatch(name) or value.startswith("tcp://")):
            continue
        yield _path(name.removeprefix(PREFIX)), value, f"environment variable {name}"


def _path(name: str) -> Path_:
    """The path of a variable or file. What follows the key is an item of a table, whose case is kept."""
    depth = 3 if name.lower().startswith(TABLES) else 2  # names that are lower-cased
    parts = name.split("__", maxsplit=depth)
    return (*(part.lower() for part in parts[:depth]), *parts[depth:])
