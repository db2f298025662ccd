"""Reads the actions file: the packaged one, or the operator's own (`actions.file`). Called when a node starts, and by
`scoreboard check-config`."""

from pathlib import Path

from scoreboard.domain.action_rules import read_rules
from scoreboard.domain.errors import SettingsError
from scoreboard.domain.scoring import Rule
from scoreboard.drivers.https_client import check_url
from scoreboard.settings.model import Settings, config_file

ACTIONS_FILE_BYTES = 65_536  # a hundred action types, each with six lines of comments


def actions_file(settings: Settings) -> Path:
    """The path of the actions file."""
    return Path(settings.actions.file) if settings.actions.file else config_file("actions.toml")


def load_rules(settings: Settings) -> dict[str, Rule]:
    """The rules of all action types. Raises SettingsError: one line with the file and what is wrong with it."""
    file = actions_file(settings)
    try:
        if file.exists() and not file.is_file():
            raise SettingsError(f"actions.file: {file} is not a file")
        with file.open("rb") as opened:  # a pipe or a device was refused above: they have no end
            content = opened.read(ACTIONS_FILE_BYTES + 1)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the name
        raise SettingsError(
            f"actions.file: {file} can't be read: {exc.strerror if isinstance(exc, OSError) else exc}"
        ) from None
    if len(content) > ACTIONS_FILE_BYTES:
        raise SettingsError(f"actions.file: {file} has more than {ACTIONS_FILE_BYTES} bytes")
    try:
        text = content.decode("utf-8-sig")  # some editors begin a file with a byte order mark
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise SettingsError(f"actions: not UTF-8 text; save it as UTF-8 (file {file}, line {line})") from None
    return read_rules(text, str(file), lambda url: check_url(url, settings.outgoing.private_hosts))
