"""The access token of a request: `Authorization: Bearer …`, and nothing else.

`Bearer.identify` tells apart nobody (no such header), somebody, and a token that is not accepted; the last is refused
even where a token is optional, so that a client notices that its log-in has ended. Other schemes are somebody else's: a
staging proxy in front of us asks for `Basic`, and browsers send that along.
"""

import re
from collections.abc import Callable
from uuid import UUID

from scoreboard.domain.errors import UNAUTHORIZED, Refusal
from scoreboard.http.request import Request
from scoreboard.operations.authenticator import Identity

SCHEME = b"bearer"
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9-]{0,31}").fullmatch  # as those of IANA's registry look


class Bearer:
    """`authenticate`, `recall`: operations.authenticator's methods."""

    __slots__ = ("_authenticate", "_recall")

    def __init__(
        self, authenticate: Callable[[str], Identity | None], recall: Callable[[str], Identity | None] = lambda _: None
    ) -> None:
        self._authenticate, self._recall = authenticate, recall

    def identify(self, request: Request) -> Identity | Refusal | None:
        """Who asks; None without a token."""
        stated = request.header(b"authorization")
        if not stated:
            return None
        scheme, _, token = stated.partition(b" ")
        fields = [value for name, value in request.headers if name == b"authorization"]
        if len(fields) > 1:  # two of them: a proxy may have read the other one
            return UNAUTHORIZED if any(_is_bearer(value) for value in fields) else None
        if scheme.lower() != SCHEME:
            return None if _SCHEME(scheme) else UNAUTHORIZED  # a token without its scheme has dots
        identity = self._authenticate(token.strip().decode("latin-1"))
        if identity is None:
            return UNAUTHORIZED
        request.user = identity.user  # for the access log
        return identity

    def require(self, request: Request) -> Identity | Refusal:
        """Who asks, where somebody has to."""
        return self.identify(request) or UNAUTHORIZED

    def recall(self, request: Request) -> UUID | None:
        """Who seems to ask: a user whose token was verified here before. For counting, not for letting anybody do
        anything."""
        scheme, _, token = request.header(b"authorization").partition(b" ")
        known = self._recall(token.strip().decode("latin-1")) if scheme.lower() == SCHEME else None
        return known.user if known else None


def _is_bearer(value: bytes) -> bool:
    return value.partition(b" ")[0].lower() == SCHEME
