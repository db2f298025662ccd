"""Which web pages may speak to us: our own, and those that the settings name.

A request without `Origin` is no browser's and may pass: the header protects people from pages, not us from programs. Pure.
"""

from collections.abc import Collection

from scoreboard.domain.errors import Code, Refusal
from scoreboard.runtime.messages import Request

FOREIGN = Refusal(Code.FORBIDDEN, "Pages of this origin are not allowed here.")


class Origins:
    """`public_url` and `allowed` as the settings give them: scheme://host[:port] in lower case, "" for none."""

    __slots__ = ("_public_url", "others")

    def __init__(self, *, public_url: str = "", allowed: Collection[str] = ()) -> None:
        self._public_url = public_url.encode()
        self.others = frozenset(origin.encode() for origin in allowed)  # these are told so by CORS; our own needs none

    def allows(self, request: Request) -> bool:
        """Whether the page that asks may. Asked where browsers ask nobody first: log-in, refresh, log-out, and whatever watches."""
        origin = request.header(b"origin").lower()
        return not origin or self.is_own(origin, request) or origin in self.others

    def is_own(self, origin: bytes, request: Request) -> bool:
        """Whether a page of that origin comes from where the request went. The scheme is not compared: a load balancer ends TLS."""
        if origin == self._public_url:
            return True
        scheme, _, host = origin.partition(b"://")
        port = {b"http": b":80", b"https": b":443"}.get(scheme)
        return port is not None and bool(host) and host.removesuffix(port) == request.header(b"host").lower().removesuffix(port)

    def is_secure(self, request: Request) -> bool:
        """Whether the browser sees https: as `public_url` says, or else the page's own origin, which a browser never misstates."""
        return (self._public_url or request.header(b"origin").lower()).startswith(b"https:")
