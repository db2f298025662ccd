"""What the routes of /admin read from path and query alike.

Tested in tests/web/routes/admin/test_users.py and tests/domain/test_admin_queries.py.
"""

from uuid import UUID

import msgspec

from scoreboard.domain.admin_queries import Values, read_action_id, read_number, read_text, read_user_id
from scoreboard.domain.errors import Refusal
from scoreboard.domain.queries import OUT_OF_BOUNDS, check_parameters, parse_query
from scoreboard.http.request import Request
from scoreboard.web import json_body
from scoreboard.web.admin_schemas import MAX_REASON_LENGTH, WithdrawalBody

# Of /api/v1/admin/users/<user>/actions/<action>/…, split at slashes; flags and held actions stand where users do.
USER_SEGMENT, ACTION_SEGMENT = 5, 7

_withdrawal = msgspec.json.Decoder(WithdrawalBody)


def user_of(request: Request) -> UUID | Refusal:
    """The user that the path names."""
    return read_user_id(request.path.split(b"/")[USER_SEGMENT].decode("latin-1"))


def action_of(request: Request) -> str | Refusal:
    """The action id that the path names."""
    return read_action_id(request.path.split(b"/")[ACTION_SEGMENT])


def number_of(request: Request) -> int | Refusal:
    """The flag or the held action that the path names."""
    return read_number(request.path.split(b"/")[USER_SEGMENT].decode("latin-1"))


def withdrawal_reason(request: Request) -> str | Refusal | None:
    """The reason of a decision that is taken back; None for a request without a body."""
    if not request.body:
        return None
    body = json_body.read(request, _withdrawal)
    return body if isinstance(body, Refusal) else read_text("reason", body.reason, MAX_REASON_LENGTH)


def read_query(request: Request, query_type: type[msgspec.Struct]) -> Values | Refusal:
    """The values of the query. A parameter that the type does not have is refused, as web.rate_limit does on paths
    without parameters of their own."""
    known = frozenset(field.encode_name for field in msgspec.structs.fields(query_type))
    if refused := check_parameters(request.query, known):
        return refused
    values = parse_query(request.query)
    return OUT_OF_BOUNDS if values is None else values
