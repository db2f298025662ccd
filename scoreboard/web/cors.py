"""Which web pages may send requests: those of this server, and those of the origins in the settings.

1. A request without `Origin` and `Sec-Fetch-Site` is no browser's and passes. These headers protect users from pages,
   not the server from programs.
2. `Host` counts only where no public URL is set, and only if nobody else can own the name. Otherwise DNS rebinding
   works: evil.example is made to resolve to this server, and its page sends `Host: evil.example`.

Pure but for the log.
"""

from collections.abc import Collection

import structlog

from scoreboard.domain.networks import LOCAL_DOMAINS, RESERVED_DOMAINS, is_in_domain, parse_address
from scoreboard.domain.paths import (
    API_PREFIX,
    AVATAR_PREFIX,
    CALLBACK_SUFFIX,
    CLIENT_PATH,
    OIDC_PREFIX,
    STATIC_PREFIX,
)
from scoreboard.http.request import Request

API = API_PREFIX.encode()
OIDC, CALLBACK = OIDC_PREFIX.encode(), CALLBACK_SUFFIX.encode()
# Beginnings of paths: other sites' pages load these files and pictures.
PUBLIC_PREFIXES = (STATIC_PREFIX.encode(), CLIENT_PATH.encode(), AVATAR_PREFIX.encode())
UNOWNABLE_DOMAINS = (*LOCAL_DOMAINS, *RESERVED_DOMAINS)  # so is a name without a dot
# Refused origins and hosts that are logged, once each. More are a flood, and are not logged.
REFUSED_LOGGED = 100
HOST_BYTES = 255  # of a name, RFC 1035; a longer one is no valid name
DEFAULT_PORTS = {b"http": b":80", b"https": b":443"}

log = structlog.get_logger()


class Origins:
    """`public_url`, `console_url` (of the console's own port) and `allowed` as the settings give them:
    scheme://host[:port] in lower case, "" for none.

    `names`: further host names of this server, besides addresses and names of a local network. Not used with a public
    URL.
    """

    __slots__ = ("_console_url", "_names", "_public_url", "_refused", "others")

    def __init__(
        self,
        *,
        public_url: str = "",
        console_url: str = "",
        allowed: Collection[str] = (),
        names: Collection[str] = (),
    ) -> None:
        self._public_url, self._console_url = _canonical(public_url.encode()), _canonical(console_url.encode())
        self._refused: set[bytes] = set()  # origins and hosts that were logged
        self._names = {name.lower().encode() for name in names}
        # CORS fields are sent to these; pages of this server need none
        self.others = frozenset(_canonical(origin.encode()) for origin in allowed)

    def allows(self, request: Request) -> bool:
        """Whether the page that sent the request may do so.

        Called where browsers send no preflight: log-in, refresh, log-out, and the live transports.
        """
        origin = request.header(b"origin").lower()
        if origin:
            return self.is_own(origin, request) or self.is_other(origin)
        return not self.refuses_cross_site(request)

    def is_other(self, origin: bytes) -> bool:
        """Whether the settings name that origin, in lower case. An origin that they do not name is logged once."""
        if origin in self.others:
            return True
        if self._is_new(origin):
            log.warning("origin_refused", origin=_text(origin), setting="server.allowed_origins")
        return False

    def refuses_cross_site(self, request: Request) -> bool:
        """Whether a foreign page sent this request, as a browser says by `Sec-Fetch-Site`, and may not: for example a
        long poll loaded as a picture.

        1. Requests for public files pass, so do preflights, and WebSockets: those are closed with 4403, which a script
           can read.
        2. A request of another site's page passes if its `Origin` is allowed, or if a person followed a link to a page
           of this server. The one path of the API that is opened so is where an outside issuer sends browsers back to.
        3. A request of this server's own page passes unless `_allows_host` refuses its host (DNS rebinding).
        """
        site = request.header(b"sec-fetch-site")
        if not site or site == b"none":
            return False  # no browser, or a person who typed the address
        path = request.path
        if path.startswith(PUBLIC_PREFIXES) or request.method == b"OPTIONS":
            return False
        if site == b"same-origin":
            return not self._public_url and path.startswith(API) and not self._allows_host(request.header(b"host"))
        if request.header(b"sec-fetch-mode") == b"websocket":
            return False
        if origin := request.header(b"origin").lower():
            return not (self.is_own(origin, request) or self.is_other(origin))
        followed = request.header(b"sec-fetch-mode") == b"navigate" and request.header(b"sec-fetch-dest") == b"document"
        return not followed or (path.startswith(API) and not (path.startswith(OIDC) and path.endswith(CALLBACK)))

    def is_own(self, origin: bytes, request: Request) -> bool:
        """Whether that origin, in lower case, is this server's.

        Without a public URL: whether it has the host and port of the `Host` field, and `_allows_host` accepts them. The
        scheme can't be compared, because a load balancer may end TLS.
        """
        if self._console_url and origin == self._console_url:
            return True
        if self._public_url:
            return origin == self._public_url
        scheme, _, host = _canonical(origin).partition(b"://")
        asked = request.header(b"host").lower()
        if scheme not in DEFAULT_PORTS or host != asked.removesuffix(DEFAULT_PORTS[scheme]):
            return False
        if self._allows_host(asked):
            return True
        self._is_new(origin)  # its host was logged, which says more
        return False

    def is_secure(self, request: Request) -> bool:
        """Whether the browser uses https: by `public_url`, or else by the page's `Origin`, which browsers always send
        correctly."""
        origin = request.header(b"origin").lower()
        if self._console_url and origin == self._console_url:
            return origin.startswith(b"https:")
        return (self._public_url or origin).startswith(b"https:")

    def _allows_host(self, host: bytes) -> bool:
        """Whether that host may be this server. A host that is refused is logged once: the settings may lack its
        name."""
        if self._is_our_host(host):
            return True
        if self._is_new(host.lower()):
            log.warning("host_refused", host=_text(host.lower()), setting="server.public_url")
        return False

    def _is_new(self, refused: bytes) -> bool:
        """Whether this origin or host is to be logged: once each, and at most REFUSED_LOGGED."""
        if not refused or refused in self._refused or len(self._refused) >= REFUSED_LOGGED or len(refused) > HOST_BYTES:
            return False
        self._refused.add(refused)
        return True

    def _is_our_host(self, host: bytes) -> bool:
        """Whether a Host field has an address, or a name that nobody else can make resolve to this server."""
        if len(host) > HOST_BYTES:
            return False
        name = host.lower()
        if name.startswith(b"["):
            return parse_address(name[1:].partition(b"]")[0].decode("latin-1")) is not None
        name = name.partition(b":")[0]
        text = name.decode("latin-1")
        if b"." not in name or is_in_domain(text, UNOWNABLE_DOMAINS):
            return bool(name)
        return name in self._names or parse_address(text) is not None


def _text(name: bytes) -> str:
    return name.decode("ascii", "backslashreplace")


def _canonical(origin: bytes) -> bytes:
    """As browsers write it: without the scheme's own port."""
    port = DEFAULT_PORTS.get(origin.partition(b"://")[0])
    return origin.removesuffix(port) if port else origin
