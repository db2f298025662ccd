"""`GET /.well-known/jwks.json`: the public keys that verify our access tokens, for services beside this one.

Keys change only with a restart, so the answer is built once.

Tested in tests/web/routes/test_keys.py.
"""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from scoreboard.domain.paths import JWKS_PATH
from scoreboard.http.request import Request, Response
from scoreboard.web.account_schemas import PublicKeys
from scoreboard.web.conditional import conditional, tagged
from scoreboard.web.responses import JSON
from scoreboard.web.route import Route

# A new key is known to all nodes before one signs with it, and services may be as late as this.
MAX_AGE_SECONDS = 300
_FIELDS = JSON + b"cache-control: public, max-age=%d\r\naccess-control-allow-origin: *\r\n" % MAX_AGE_SECONDS


class KeyRoutes:
    """`keys`: JSON Web Keys, public ones alone."""

    def __init__(self, keys: Sequence[Mapping[str, str]]) -> None:
        self._answer = tagged(msgspec.json.encode({"keys": keys}), _FIELDS)

    def routes(self) -> Iterator[Route]:
        """One."""
        yield Route(method="GET", path=JWKS_PATH, handler=self.read, direct=True, name="jwks", response_type=PublicKeys)

    async def read(self, request: Request) -> Response:
        """The public keys that verify access tokens."""
        return conditional(request, *self._answer)
