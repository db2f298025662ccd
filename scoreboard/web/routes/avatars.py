"""`GET /avatars/{userId}`: the picture of a user who is on the board now, from this server. See operations.pictures for
how it gets here.

Other sites' pages may show it too: it is public like the board.
"""

from collections.abc import Iterator

from scoreboard.domain.errors import Code, Refusal
from scoreboard.domain.paths import AVATAR_PREFIX
from scoreboard.domain.pictures import host_of, version
from scoreboard.http.request import Request, Response
from scoreboard.operations.pictures import Pictures
from scoreboard.operations.read_leaderboard import Leaderboard
from scoreboard.web.conditional import conditional
from scoreboard.web.problems import problem
from scoreboard.web.route import Route

NO_PICTURE = Refusal(Code.NOT_FOUND, "There is no such picture.")

_FIELDS = b"access-control-allow-origin: *\r\n"
_KEEP = b"cache-control: public, max-age=3600\r\n"
_KEEP_ABSENCE = b"public, max-age=60"  # seconds; a page that draws the same picture often asks once
_ASK = b"cache-control: no-cache\r\n"  # the request's `v` is not this picture's, so caches must ask each time


class AvatarRoutes:
    """`pictures`: None when this server shows none."""

    def __init__(self, leaderboard: Leaderboard, pictures: Pictures | None) -> None:
        self._leaderboard, self._pictures = leaderboard, pictures

    def routes(self) -> Iterator[Route]:
        """One, by Quart: its path has a parameter."""
        yield Route(method="GET", path=f"{AVATAR_PREFIX}<user>", handler=self.avatar, name="avatar")

    async def avatar(self, request: Request) -> Response:
        """The picture; 404 when the user is not among the rows of the board, has none, or it can't be had."""
        user = request.path.decode("latin-1").removeprefix(AVATAR_PREFIX)
        if self._pictures is None:
            return _no_picture(request)
        snapshot = await self._leaderboard.snapshot()
        url = next((row.avatarUrl for row in snapshot.rows if row.userId == user), None)
        if url is None or not (host := host_of(url)):
            return _no_picture(request)
        if host == _host(request):  # it may be this server: nothing is fetched, and no cache keeps the answer
            return problem(NO_PICTURE, request.request_id)
        picture = await self._pictures.get(url)
        if picture is None:
            return _no_picture(request)
        keep = _KEEP if request.query == f"v={version(url)}".encode() else _ASK
        fields = b"content-type: %b\r\n%b%betag: %b\r\n" % (picture.media_type.encode(), keep, _FIELDS, picture.etag)
        return conditional(request, Response(200, picture.content, fields), picture.etag)


def _no_picture(request: Request) -> Response:
    return problem(NO_PICTURE, request.request_id, cache_control=_KEEP_ABSENCE)


def _host(request: Request) -> str:
    """The host name in the request's Host field, without a port."""
    return host_of(f"//{request.header(b'host').decode('latin-1')}")
