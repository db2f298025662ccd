"""Successful responses: `{"success": true, "data": …}`. Errors are in web.problems.

Tested in tests/web/test_handlers_agree.py.
"""

from typing import Any

import msgspec

from scoreboard.http.request import Response

JSON = b"content-type: application/json\r\n"
PRIVATE = JSON + b"cache-control: no-store\r\n"  # for one user, and never stored

_encode = msgspec.json.Encoder().encode


def success(data: Any, *, status: int = 200, fields: bytes = PRIVATE) -> Response:
    """`data` in its envelope."""
    return Response(status, b'{"success":true,"data":%b}' % _encode(data), fields)


def no_content(fields: bytes = b"") -> Response:
    """204."""
    return Response(204, b"", fields + b"cache-control: no-store\r\n")
