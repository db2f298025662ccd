"""Errors as clients see them: every Refusal becomes problem+json (RFC 9457), every exception a 503 or a 500 without a
trace of its cause.

Used by every route, by http (through web.listeners) for what it refuses itself, and by the application's error
handlers. Tested in tests/web/test_handlers_agree.py.
"""

from typing import Any

import msgspec
import structlog

from scoreboard.domain.errors import STATUS, TITLE, Code, FieldError, Refusal, StorageUnavailable
from scoreboard.http.request import Request, Response
from scoreboard.web.rate_limit_fields import used_up

RETRY_AFTER_SECONDS = 1  # during an outage, whose end is not known; one try a second costs little

OUT_OF_SERVICE = Refusal(
    Code.SERVICE_UNAVAILABLE,
    "The data cannot be reached at the moment. Please try again.",
    retry_after=RETRY_AFTER_SECONDS,
)
FAILED = Refusal(Code.INTERNAL, "This was our mistake. It is in the log under the request id.")

_FIELDS = b"content-type: application/problem+json\r\ncache-control: %b\r\n"

log = structlog.get_logger()


class Problem(msgspec.Struct, frozen=True):
    """The body of every error."""

    type: str  # a name, not an address: there is nothing to fetch
    title: str
    status: int
    detail: str
    success: bool
    code: str
    requestId: str
    errors: tuple[FieldError, ...] | msgspec.UnsetType = msgspec.UNSET  # of a request that is not valid: which fields
    layer: str | msgspec.UnsetType = msgspec.UNSET  # of 429: which limit
    data: Any = msgspec.UNSET  # of 409 DUPLICATE_ACTION: the original outcome


_encode = msgspec.json.Encoder().encode
_TYPE = {code: f"urn:scoreboard:problem:{code.lower()}" for code in Code}


def problem(
    refusal: Refusal,
    request_id: bytes,
    *,
    data: Any = msgspec.UNSET,
    fields: bytes = b"",
    cache_control: bytes = b"no-store",
) -> Response:
    """The answer to a request that is refused. `fields`: ready header lines to be added."""
    code = refusal.code
    body = Problem(
        type=_TYPE[code],
        title=TITLE[code],
        status=STATUS[code],
        detail=refusal.detail,
        success=False,
        code=code.value,
        requestId=request_id.decode("ascii"),
        errors=refusal.errors or msgspec.UNSET,
        layer=refusal.layer or msgspec.UNSET,
        data=data,
    )
    lines = _FIELDS % cache_control + fields
    if refusal.retry_after is not None:
        lines += b"retry-after: %d\r\n%b" % (refusal.retry_after, used_up(refusal))
    if code is Code.UNAUTHORIZED:
        lines += b"www-authenticate: Bearer\r\n"  # RFC 9110 section 11.6.1
    return Response(STATUS[code], _encode(body), lines)


def error_response(request: Request, exc: Exception) -> Response:
    """The response when a handler raised. A store that is out of reach is expected and gives 503. Anything else is a
    bug, which is logged with its traceback and gives 500."""
    request_id = request.request_id
    if isinstance(exc, StorageUnavailable):
        log.info(
            "request_unserved",
            request_id=request_id.decode(),
            path=request.path.decode("latin-1"),
            store=exc.store,
            why=exc.why,
        )
        return problem(OUT_OF_SERVICE, request_id)
    log.error("request_failed", request_id=request_id.decode(), path=request.path.decode("latin-1"), exc_info=exc)
    return problem(FAILED, request_id)
