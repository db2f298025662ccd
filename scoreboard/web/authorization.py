"""The access token of a request: `Authorization: Bearer …`, and nothing else.

`Bearer.identify` tells three cases apart: no token, a valid token, and a token that is not accepted. The last is
refused even where a token is optional, so that a client notices that its session has ended. Other schemes are ignored:
a staging proxy in front of the server may ask for `Basic`, and browsers send that along. Tested in
tests/web/test_handlers_agree.py.
"""

import re
from uuid import UUID

from scoreboard.domain.errors import UNAUTHORIZED, Refusal
from scoreboard.http.request import Request
from scoreboard.operations.authenticator import Authenticator, Identity

SCHEME = b"bearer"
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9-]{0,31}").fullmatch  # every scheme of IANA's registry matches


class Bearer:
    """Reads the header; the authenticator verifies the token that is in it."""

    __slots__ = ("_authenticator",)

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def identify(self, request: Request) -> Identity | Refusal | None:
        """The identity of the token's user; None without a token, a Refusal when the token is not valid."""
        header = request.header(b"authorization")
        if not header:
            return None
        scheme, _, token = header.partition(b" ")
        values = [value for name, value in request.headers if name == b"authorization"]
        if len(values) > 1:  # a proxy in front may have read the other one
            return UNAUTHORIZED if any(_is_bearer(value) for value in values) else None
        if scheme.lower() != SCHEME:
            return None if _SCHEME(scheme) else UNAUTHORIZED  # a token without its scheme has dots
        identity = self._authenticator.authenticate(token.strip().decode("latin-1"))
        if identity is None:
            return UNAUTHORIZED
        request.user = identity.user  # for the access log
        return identity

    def require(self, request: Request) -> Identity | Refusal:
        """The same where a token is required: a Refusal without one."""
        return self.identify(request) or UNAUTHORIZED

    def user_of(self, request: Request) -> UUID | None:
        """The user of the request's token; None without a valid one."""
        identity = self.identify(request)
        return identity.user if isinstance(identity, Identity) else None

    def cached_identity(self, request: Request) -> UUID | None:
        """The user of a token that this node has verified earlier; None for any other. The token is not verified again.
        For rate limits, never for access."""
        scheme, _, token = request.header(b"authorization").partition(b" ")
        known = (
            self._authenticator.cached_identity(token.strip().decode("latin-1")) if scheme.lower() == SCHEME else None
        )
        return known.user if known else None


def _is_bearer(value: bytes) -> bool:
    return value.partition(b" ")[0].lower() == SCHEME
