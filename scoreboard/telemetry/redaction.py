"""Removes secrets from log lines: whole fields by their name, parts of texts by their form. Pure.

It rather removes too much than too little. No pattern backtracks far, whatever the text: its repetitions are possessive
or short.
"""

import re
from typing import Any

from structlog.typing import EventDict, WrappedLogger

REDACTED = "[redacted]"
MAX_TEXT_LENGTH = 16_384  # characters of a value in a line; a longer one is cut before it is searched
MAX_NESTING = 6  # levels of a nested value that are searched one by one; deeper ones become one redacted text

# A name that holds one of these has a secret as its value: accessToken, password_hash, PGPASSWORD,
# __Secure-scoreboard_refresh, Set-Cookie.
_WORDS = (
    *(
        "token",
        "passw(?:or)?d",
        "passphrase",
        "secret",
        "credential",
        "(?:api|device)[_-]?key",
        "(?:signing|master|private)[_-]?key",
    ),
    *("authorization", "cookie", "scoreboard_(?:refresh|device)"),
)
SENSITIVE = f"(?:{'|'.join(_WORDS)})"
SECRET_FIELD = re.compile(rf".*{SENSITIVE}.*", re.IGNORECASE | re.DOTALL)

_QUOTE = r"(?:\\{0,8}[\"']|%22|%27|&quot;|&#3[49];)"  # plain, escaped a few times, as a URL or HTML writes it
_COMMA = rf",(?=\s{{0,4}}b?{_QUOTE})"  # of a pair: ('token', 'x')
_NAME = rf"[\w-]{{0,40}}+(?:{_QUOTE}?[\])]?\s{{0,4}}(?:=>|[:=]|%3D|%3A)|{_QUOTE}{_COMMA})\s{{0,4}}"
# Only what is clearly quoted ends with its quote. Brackets, escapes and doubtful quotes reach to the end of the line,
# all else to the next space or &.
_QUOTED = r"[bru]{0,2}(?:\"[^\"\\\n]*+\"|'[^'\\\n]*+')(?![^\s,;:&|)\]}>\\])"
_VALUE = rf"(?:{_QUOTED}|\[redacted\]|[bru]{{0,2}}[\\\"'\[{{(<][^\n]*|(?:&quot;|&#3[49];)\S*|[^\s&]+)"
_HEADER = rf"(?:authorization|cookie){_QUOTE}?\s{{0,4}}(?:[:=]|{_COMMA})\s{{0,4}}"

SECRET_TEXT = (
    # A private key.
    (re.compile(r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,20}-----|\Z)", re.DOTALL), REDACTED),
    # A header field: all of it, as a cookie or "Bearer …" has spaces.
    (re.compile(rf"({_HEADER})(?:{_QUOTED}|\[redacted\]|[^\n]+)", re.IGNORECASE), rf"\1{REDACTED}"),
    # Name, sign, value: token=x, "token": "x", {'token': b'x'}, ('token', 'x'), \"token\": \"x\", token%3Dx.
    (re.compile(rf"({SENSITIVE}{_NAME}){_VALUE}", re.IGNORECASE), rf"\1{REDACTED}"),
    (re.compile(r"\b(Bearer|Basic)(?:\s|%20){1,8}[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1 {REDACTED}"),
    # On its own: a JWT, an argon2 hash, a key of 32 bytes, and whatever is long and mixed: refresh tokens, action
    # secrets, device cookies.
    (re.compile(r"(\bsbk_[0-9a-f]{12}_)[\w-]+"), rf"\1{REDACTED}"),  # a server key, without its id
    (re.compile(r"\beyJ[\w-]{8,}+\.[\w-]++\.[\w-]*"), REDACTED),
    (re.compile(r"\$argon2\w{1,2}\$[^\s\"']+"), REDACTED),
    (re.compile(r"(?<![\w+/=-])[A-Za-z0-9+/]{43}=(?!=)"), REDACTED),
    (re.compile(r"(?<![\w/-])(?=[\w-]*[0-9])(?=[\w-]*[A-Z])(?=[\w-]*[a-z])[\w-]{43,}+(?!/)"), REDACTED),
)
_AFTER_SCHEME = re.compile(r"://\S+")


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A log line without its secrets. A processor of structlog."""
    return {
        key: REDACTED if SECRET_FIELD.fullmatch(key) else _redacted(value, MAX_NESTING) for key, value in event.items()
    }


def redact_text(text: str) -> str:
    """The same for one text."""
    if len(text) > MAX_TEXT_LENGTH:
        # The end is kept too, as a traceback's reason stands there. It begins with a whole line: half a secret would
        # not be found.
        text = text[: MAX_TEXT_LENGTH // 2] + " [cut]\n" + text[-MAX_TEXT_LENGTH // 2 :].partition("\n")[2]
    text = _AFTER_SCHEME.sub(_without_password, text)
    for pattern, kept in SECRET_TEXT:
        text = pattern.sub(kept, text)
    return text


def _redacted(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return redact_text(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes):
        return redact_text(value.decode(errors="backslashreplace"))
    if depth and isinstance(value, dict):
        return {
            str(key): REDACTED if SECRET_FIELD.fullmatch(str(key)) else _redacted(item, depth - 1)
            for key, item in value.items()
        }
    if depth and isinstance(value, list | tuple | set | frozenset):
        # a header field, say
        if len(value) == 2 and isinstance(value, list | tuple) and isinstance(value[0], str | bytes):
            name, _ = value
            if SECRET_FIELD.fullmatch(name if isinstance(name, str) else name.decode("latin-1")):
                return [_redacted(name, 0), REDACTED]
        return [_redacted(item, depth - 1) for item in value]
    return redact_text(str(value))


def _without_password(found: re.Match[str]) -> str:
    """What follows a URL's scheme. The password ends at the last @, whether or not it was encoded as it should have
    been."""
    account, at, host = found[0].rpartition("@")
    name, colon, _ = account.removeprefix("://").partition(":")
    return f"://{name}:{REDACTED}@{host}" if at and colon else found[0]
