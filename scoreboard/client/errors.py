"""The errors that the client raises. Any other exception of it is a bug or a cancellation.

ClientError
├── Refused      the server refused, with a status; the same request would be refused again (before `retry_after`)
├── ActionHeld   the action was accepted and waits for a decision (or was decided since): it gives no points yet
├── Unreachable  no answer in the time that the caller gave; what was asked may have been done
└── Closed       the live connection was ended for good

Tested in tests/client/test_session.py.
"""

from typing import Any

import msgspec

from scoreboard.domain.errors import ScoreboardError


class ClientError(ScoreboardError):
    """Root of the client's errors."""


class Refused(ClientError):
    """An answer of 400 and above: `status`, and what problem+json says of it.

    `code` is one of domain.errors.Code ("" when a proxy answered), `layer` the limit of a 429, `retry_after` in
    seconds.
    """

    def __init__(
        self,
        status: int,
        code: str = "",
        detail: str = "",
        *,
        layer: str = "",
        retry_after: float | None = None,
        errors: tuple[dict[str, Any], ...] = (),
        request_id: str = "",
    ) -> None:
        super().__init__(f"{status} {code}: {detail}" if code else f"{status} {detail}")
        self.status, self.code, self.detail, self.layer = status, code, detail, layer
        self.retry_after, self.errors, self.request_id = retry_after, errors, request_id


class ActionHeld(ClientError):
    """An action of a type that somebody must approve.

    `status` is held, approved or refused, `points` what it gives when it is approved, `expires_at` (RFC 3339 UTC) until
    when it waits, `reason` that of the decision.
    """

    def __init__(self, action_id: str, status: str, points: int, expires_at: str, reason: str | None) -> None:
        super().__init__(f"{action_id}: {status}")
        self.action_id, self.status, self.points = action_id, status, points
        self.expires_at, self.reason = expires_at, reason


class Unreachable(ClientError):
    """No answer came in time. `action_id`, for an action: it can be submitted again under this id without counting
    twice."""

    def __init__(self, why: str, action_id: str = "") -> None:
        super().__init__(why)
        self.action_id = action_id


class Closed(ClientError):
    """The server ended the live connection with a code after which one does not reconnect
    (domain.close_codes.RECONNECT)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code, self.reason = code, reason


class _Problem(msgspec.Struct):
    """The members of problem+json that are of use."""

    code: str = ""
    detail: str = ""
    layer: str = ""
    errors: tuple[dict[str, Any], ...] = ()
    requestId: str = ""


def refused(status: int, body: bytes, retry_after: float | None) -> Refused:
    """The error for an answer of the server or of a proxy."""
    try:
        problem = msgspec.json.decode(body, type=_Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):  # a proxy's page
        problem = _Problem(detail="not an answer of the scoreboard's")
    return Refused(
        status,
        problem.code,
        problem.detail,
        layer=problem.layer,
        retry_after=retry_after,
        errors=problem.errors,
        request_id=problem.requestId,
    )
