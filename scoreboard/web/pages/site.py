"""The live page and its files: small, kept in memory, plain and gzipped, each with an ETag.

File names carry no hash, so browsers ask for each file every time (`no-cache`) and get 304 for one that they have. A
page never runs with the scripts of another version. Tested in tests/web/test_application.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader

from scoreboard.domain.actions import Action
from scoreboard.domain.boards import Snapshot, rfc3339
from scoreboard.domain.errors import Code, Refusal, StorageUnavailable
from scoreboard.domain.paths import CLIENT_PATH, PAGE_PATH, STATIC_PREFIX
from scoreboard.domain.scoring import Rule, Rules, award
from scoreboard.http.request import Request, Response
from scoreboard.operations.read_leaderboard import Leaderboard
from scoreboard.web.compression import CompressedResponse, compressed
from scoreboard.web.pages.branding import MANIFEST, SHIPPED, Branding, manifest
from scoreboard.web.pages.first_paint import PageAction, render_context
from scoreboard.web.pages.script_comments import without_comments
from scoreboard.web.problems import problem
from scoreboard.web.route import Route

TYPES = {
    ".avif": "image/avif",
    ".css": "text/css; charset=utf-8",
    ".gif": "image/gif",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".ts": "application/typescript; charset=utf-8",
    ".webp": "image/webp",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
STAGE = b"stage"  # /?stage
CLIENT = CLIENT_PATH.removeprefix("/")
# The content of CLIENT_PATH. It re-exports the module from its one address: a module that is imported by two addresses
# is loaded twice, and the two copies do not share a connection.
CLIENT_ENTRY = f"export * from '.{STATIC_PREFIX}{CLIENT}';\n".encode()

# A module script of another site's page is fetched with CORS; these files are the same for everybody.
_FIELDS = b"cache-control: no-cache\r\nvary: accept-encoding\r\naccess-control-allow-origin: *\r\n"
PAGE_FIELDS = b"content-type: text/html; charset=utf-8\r\ncache-control: no-cache\r\nvary: accept-encoding\r\n"
PAGE_GZIP_LEVEL = 6  # the page is compressed for each change of the board, and 9 gains nothing


NO_FILE = Refusal(Code.NOT_FOUND, "There is no such file.")


class _RenderedPage(NamedTuple):
    """The page with one board, which is None when no store could be read."""

    snapshot: Snapshot | None
    content: CompressedResponse


def page_actions(rules: Rules, *, cooldowns: bool = True) -> list[PageAction]:
    """A button for each action type that has one, with metadata that its rule accepts and the points for it. Trusted
    types have none: users do not submit them.

    `cooldowns` False: every button's cooldown is 0, since the server enforces none.
    """
    return [
        _button(name, rule, rules, cooldowns=cooldowns)
        for name, rule in rules.items()
        if rule.button and not rule.trusted
    ]


def _button(name: str, rule: Rule, rules: Rules, *, cooldowns: bool) -> PageAction:
    metadata: dict[str, Any] = {}
    if rule.difficulty:
        metadata["difficulty"] = next(iter(rule.difficulty))
    if rule.time is not None:
        metadata["timeSpent"] = round(min(max(2 * rule.time.minimum, 1), rule.time.maximum))
    points = award(Action("", name, 0, metadata, None), rules)
    return PageAction(
        name,
        rule.title,
        "" if isinstance(points, Refusal) else str(points),
        rule.cooldown if cooldowns else 0,
        metadata,
        started=f"{rule.started.minimum:g}" if rule.started else "",
        proof="evidence" if rule.evidence else "held" if rule.hold else "",
    )


def _file(name: str, content: bytes) -> CompressedResponse:
    media_type = TYPES.get("." + name.rpartition(".")[2], "application/octet-stream").encode()
    return compressed(content, b"content-type: %b\r\n%b" % (media_type, _FIELDS))


class PageRoutes:
    """`rules`: of the actions that have buttons, empty for no buttons; `per_minute`: the limit of actions a user, 0 for
    none; `guests`: whether one may play without an account; `cooldowns`: whether they are enforced; `avatars`: whether
    pictures of users are shown; `public_url`: the address that browsers use, "" when it is not known; `log_ins`: title
    and path of each outside issuer by whom browsers may log in."""

    def __init__(
        self,
        rules: Rules,
        leaderboard: Leaderboard,
        *,
        per_minute: int,
        registration: bool,
        guests: bool = False,
        cooldowns: bool = True,
        avatars: bool = True,
        branding: Branding = SHIPPED,
        public_url: str = "",
        log_ins: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._avatars, self._branding, self._public_url = avatars, branding, public_url.rstrip("/")
        self._actions, self._leaderboard = page_actions(rules, cooldowns=cooldowns), leaderboard
        self._per_minute, self._registration, self._guests = per_minute, registration, guests
        self._log_ins = tuple(log_ins)
        folder = files("scoreboard.web").joinpath("static")
        shipped = {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.is_file()}
        scripts = {name: without_comments(content) for name, content in shipped.items() if name.endswith(".js")}
        contents = shipped | scripts | branding.files
        contents[MANIFEST] = manifest(contents.get(MANIFEST), branding)
        by_path = {STATIC_PREFIX + name: content for name, content in contents.items()} | {CLIENT_PATH: CLIENT_ENTRY}
        self._files = {path: _file(path, content) for path, content in by_path.items()}
        self.paths = tuple(by_path)  # of `file`
        self._template = Environment(loader=PackageLoader("scoreboard.web"), autoescape=True).get_template("index.html")
        self._pages: dict[bool, _RenderedPage] = {}  # the newest, with ?stage and without

    def routes(self) -> Iterator[Route]:
        """The page and its files. Each file has a direct route of its own; Quart has one rule for all of them."""
        yield Route(method="GET", path=PAGE_PATH, handler=self.index, direct=True, name="index")
        yield Route(method="GET", path=f"{STATIC_PREFIX}<path:name>", handler=self.file, name="file")
        for path in self.paths:
            yield Route(
                method="GET", path=path, handler=self.file, direct=True, quart=path == CLIENT_PATH, name="client"
            )

    def context(self, snapshot: Snapshot | None, *, stage: bool = False) -> Mapping[str, Any]:
        """What the template is given; without a board when no store can be read."""
        return render_context(
            snapshot.shown if snapshot else None,
            self._actions,
            updated=rfc3339(snapshot.updated_ms) if snapshot else "",
            per_minute=self._per_minute,
            registration=self._registration,
            guests=self._guests,
            stage=stage,
            avatars=self._avatars,
            branding=self._branding,
            public_url=self._public_url,
            log_ins=self._log_ins,
        )

    async def index(self, request: Request) -> Response:
        """The page, with the present board in it; with `?stage` the board alone. Rendered once for all who ask before
        the board changes."""
        stage = request.query == STAGE or request.query.startswith(STAGE + b"=")
        try:
            snapshot = await self._leaderboard.snapshot()
        except StorageUnavailable:
            snapshot = None
        page = self._pages.get(stage)
        if page is None or page.snapshot is not snapshot:
            content = self._template.render(self.context(snapshot, stage=stage)).encode()
            page = self._pages[stage] = _RenderedPage(snapshot, compressed(content, PAGE_FIELDS, PAGE_GZIP_LEVEL))
        return page.content.respond(request)

    async def file(self, request: Request) -> Response:
        """A file of the page."""
        found = self._files.get(request.path.decode("latin-1"))
        if found is None:
            return problem(NO_FILE, request.request_id)
        return found.respond(request)
