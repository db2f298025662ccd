"""The access token or the server key of a request: `Authorization: Bearer …`, and nothing else.

`Bearer.identify` tells three cases apart: no token, a valid token, and a token that is not accepted. The last is
refused even where a token is optional, so that a client notices that its session has ended. Other schemes are ignored:
a staging proxy in front of the server may ask for `Basic`, and browsers send that along.

`Bearer.require_scope` is for routes that take server keys. A route takes either tokens or keys: the wrong one is
refused with a sentence that says so. Only where a token is optional a key with the scope `read` reads as nobody.

Tested in tests/web/test_handlers_agree.py and tests/web/routes/test_server.py.
"""

import re
from uuid import UUID

from scoreboard.domain.errors import UNAUTHORIZED, Code, Refusal
from scoreboard.domain.scopes import Scope
from scoreboard.http.request import Request
from scoreboard.operations.authenticator import Authenticator, Identity
from scoreboard.operations.server_keys import ServerIdentity, ServerKeys
from scoreboard.security.server_keys import PREFIX, key_id_of

SCHEME = b"bearer"
_PREFIX = PREFIX.encode()

TAKES_TOKENS = Refusal(Code.UNAUTHORIZED, "This route takes a user's access token, not a server key.")
TAKES_KEYS = Refusal(Code.UNAUTHORIZED, "This route takes a server key (sbk_…), not a user's access token.")
NO_KEY = Refusal(Code.UNAUTHORIZED, "A valid server key is needed.")
MISTYPED_KEY = Refusal(
    Code.UNAUTHORIZED, "This is no server key: its checksum is wrong, so a part is missing or mistyped."
)
WRONG_KEY = Refusal(Code.UNAUTHORIZED, "This server key is not known here, revoked or expired.")

_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9-]{0,31}").fullmatch  # every scheme of IANA's registry matches


class Bearer:
    """Reads the header; the authenticator verifies the token that is in it."""

    __slots__ = ("_authenticator", "_server_keys")

    def __init__(self, authenticator: Authenticator, server_keys: ServerKeys | None = None) -> None:
        """`server_keys` None: no server key is accepted."""
        self._authenticator, self._server_keys = authenticator, server_keys

    def identify(self, request: Request) -> Identity | Refusal | None:
        """The identity of the token's user; None without a token, or with a server key that may read. A Refusal when
        the token or the key is not valid."""
        identity = self._identify(request)
        if identity is not TAKES_TOKENS:
            return identity
        key = self.require_scope(request, Scope.READ)
        return key if isinstance(key, Refusal) else None

    def _identify(self, request: Request) -> Identity | Refusal | None:
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
            return TAKES_TOKENS if token.strip().startswith(_PREFIX) else UNAUTHORIZED
        request.user = identity.user  # for the access log
        return identity

    def require(self, request: Request) -> Identity | Refusal:
        """The same where a token is required: a Refusal without one, and with a server key."""
        return self._identify(request) or UNAUTHORIZED

    def require_scope(self, request: Request, scope: Scope) -> ServerIdentity | Refusal:
        """The server key of the request, if it has the scope. 401 without a valid key, 403 without the scope."""
        values = [value for name, value in request.headers if name == b"authorization"]
        if len(values) != 1 or not _is_bearer(values[0]):
            return NO_KEY
        key = self.presented_key(request)
        if not key:
            return TAKES_KEYS
        identity = self.server_identity(key)
        if identity is None:
            return WRONG_KEY if key_id_of(key) else MISTYPED_KEY
        request.user = identity.actor  # for the access log
        if scope not in identity.scopes:
            return Refusal(Code.FORBIDDEN, f"This server key does not have the scope {scope}.")
        return identity

    def presented_key(self, request: Request) -> str:
        """What stands in the place of a server key; "" when it is no server key by its first characters."""
        scheme, _, token = request.header(b"authorization").partition(b" ")
        token = token.strip()
        return token.decode("latin-1") if token.startswith(_PREFIX) and scheme.lower() == SCHEME else ""

    def server_identity(self, key: str) -> ServerIdentity | None:
        """The identity of a server key; None when it is not valid."""
        return self._server_keys.authenticate(key) if self._server_keys is not None else None

    def caller_of(self, request: Request, auth: object) -> UUID | str | Refusal:
        """Who makes a request to a route with this `auth`: the user, or the key as an actor."""
        if isinstance(auth, Scope):
            key = self.require_scope(request, auth)
            return key if isinstance(key, Refusal) else key.actor
        identity = self.require(request)
        return identity if isinstance(identity, Refusal) else identity.user

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
