"""JSON bodies, read strictly: the result is the decoder's type or a Refusal, whatever was sent.

Tested in tests/web/routes/test_auth.py and tests/web/test_worst_inputs.py.
"""

import re
from typing import TypeVar

import msgspec

from scoreboard.domain.actions import DECODE_ERRORS, field_and_message, refuse_repeated_names
from scoreboard.domain.errors import Code, Refusal, invalid_request
from scoreboard.http.request import Request

T = TypeVar("T")

NOT_JSON = Refusal(Code.UNSUPPORTED_MEDIA_TYPE, "The body must be application/json.")

# PostgreSQL's text can't hold it. An escaped backslash before "u0000" has the same bytes, and is refused too.
_NUL = b"\\u0000"
_NAMED = re.compile(r"Object (?:contains unknown|missing required) field `(.*)`", re.DOTALL)


def is_json(request: Request) -> bool:
    """Whether Content-Type is JSON's, or absent."""
    stated = request.header(b"content-type")
    return not stated or stated.partition(b";")[0].strip().lower() == b"application/json"


def read(request: Request, decoder: "msgspec.json.Decoder[T]") -> T | Refusal:
    """The body as the decoder's type."""
    body = request.body
    if not is_json(request):
        return NOT_JSON
    if _NUL in body:
        return invalid_request("body", "must not contain \\u0000")
    try:
        decoded = decoder.decode(body)
        refuse_repeated_names(body)
    except msgspec.ValidationError as exc:
        return invalid_request(*_named(exc))
    except (*DECODE_ERRORS, ValueError) as exc:
        return invalid_request("body", f"is not JSON that can be read: {str(exc)[:100]}")
    return decoded


def _named(error: msgspec.ValidationError) -> tuple[str, str]:
    """Field and message of an error. msgspec reports unknown and missing fields for the object; here they are named."""
    field, message = field_and_message(error)
    if found := _NAMED.fullmatch(message):
        return found[1][:100], "is not known here" if "unknown" in message else "is required"
    return field, message
