"""The access token of a request: `Authorization: Bearer …`, and nothing else.

`Bearer.identify` tells apart nobody (no header), somebody, and a token that is not accepted; the last is refused even where a token is
optional, so that a client notices that its log-in has ended.
"""

from collections.abc import Callable

from scoreboard.domain.errors import Refusal
from scoreboard.operations.sessions import Identity
from scoreboard.runtime.messages import Request
from scoreboard.web.problems import UNAUTHORIZED


class Bearer:
    """`authenticate`: operations.sessions' method."""

    __slots__ = ("_authenticate",)

    def __init__(self, authenticate: Callable[[str], Identity | None]) -> None:
        self._authenticate = authenticate

    def identify(self, request: Request) -> Identity | Refusal | None:
        """Who asks; None without a token."""
        stated = request.header(b"authorization")
        if not stated:
            return None
        scheme, _, token = stated.partition(b" ")
        if scheme.lower() != b"bearer" or sum(name == b"authorization" for name, _ in request.headers) > 1:
            return UNAUTHORIZED  # two of them: a proxy may have read the other one
        identity = self._authenticate(token.strip().decode("latin-1"))
        if identity is None:
            return UNAUTHORIZED
        request.user = identity.user  # for the access log
        return identity

    def require(self, request: Request) -> Identity | Refusal:
        """Who asks, where somebody has to."""
        return self.identify(request) or UNAUTHORIZED
