"""Finds the line of a key in a TOML text, for error messages. Pure; called by the readers of actions and settings."""

import tomllib
from typing import Any

# of one statement: to find its end, it is parsed again with each further line
MAX_STATEMENT_LINES = 200
MAX_KEY_CHARACTERS = 60  # of a key in a message: a longer one is cut
MAX_REASON_CHARACTERS = 300  # of a parser's message, which may quote the text: a longer one is cut


def shown_keys(keys: tuple[str, ...]) -> str:
    """A path of keys for a message: joined by dots, in one line, each cut to MAX_KEY_CHARACTERS."""
    shown = (key if key.isprintable() else ascii(key) for key in keys)
    return ".".join(key if len(key) <= MAX_KEY_CHARACTERS else f"{key[: MAX_KEY_CHARACTERS - 1]}…" for key in shown)


def shown_reason(reason: object) -> str:
    """A parser's message, cut in the middle to MAX_REASON_CHARACTERS."""
    text, half = str(reason), MAX_REASON_CHARACTERS // 2
    return text if len(text) <= MAX_REASON_CHARACTERS else f"{text[:half]} … {text[-half:]}"


def line_of(text: str, keys: tuple[str, ...]) -> int:
    """The line, counted from 1, of the deepest of these keys that is defined. `text` must be valid TOML.

    Each statement of TOML is a valid text by itself. So lines are joined until they can be parsed, and the keys that
    the statement defines are compared.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    best, depth, header = 1, 0, tuple[str, ...]()
    at = 0
    while at < len(lines):
        end = at + 1
        while (parsed := _parsed("\n".join(lines[at:end]))) is None and end < min(len(lines), at + MAX_STATEMENT_LINES):
            end += 1
        path = _only_path(parsed or {})
        is_header = lines[at].lstrip().startswith("[")
        if is_header:
            header = path
        defined = header if is_header else header + path
        common = 0
        while common < min(len(defined), len(keys)) and defined[common] == keys[common]:
            common += 1
        if common > depth:
            best, depth = at + 1, common
        at = end
    return best


def _parsed(statement: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(statement)
    except tomllib.TOMLDecodeError:
        return None


def _only_path(tree: Any) -> tuple[str, ...]:
    """The keys down to the first branch of a statement's tree. For an inline table with several keys: the key whose
    value it is."""
    path: tuple[str, ...] = ()
    while isinstance(tree, dict) and len(tree) == 1:
        ((key, tree),) = tree.items()
        path += (key,)
    return path


def table_before(text: str, line: int) -> str:
    """The name of the table that contains a faulty line, after a dot; "" for none. The text is not valid TOML, so this
    is a guess."""
    for candidate in reversed(text.split("\n")[:line]):
        if candidate.lstrip().startswith("["):
            path = _only_path(_parsed(candidate.strip()) or {})
            return f".{shown_keys(path)}" if path else ""
    return ""
