"""The page `/console`, on which those with a role look after users, flags and held actions.

The page is the same for everybody and has no data: static/console.js asks /api/v1/admin, which decides at each request
who may do what. Tested in tests/e2e/test_console.py.
"""

from collections.abc import Iterator

from jinja2 import Environment, PackageLoader

from scoreboard.domain.audit import AuditKind
from scoreboard.domain.paths import CONSOLE_PATH, STATIC_PREFIX
from scoreboard.http.request import Request, Response
from scoreboard.web.compression import compressed
from scoreboard.web.pages.branding import SHIPPED, Branding
from scoreboard.web.pages.site import PAGE_FIELDS
from scoreboard.web.route import Route


class ConsolePage:
    """The page, rendered once with the operator's title and colours. `links_to_board`: whether users may log in
    there by another way than a password, so that this browser is logged in here too."""

    def __init__(self, branding: Branding = SHIPPED, *, links_to_board: bool = False) -> None:
        template = Environment(loader=PackageLoader("scoreboard.web"), autoescape=True).get_template("console.html")
        content = template.render(
            title=branding.title,
            icon=f"{STATIC_PREFIX}{branding.logo or 'favicon.svg'}",
            theme=branding.has_theme,
            links_to_board=links_to_board,
            kinds=" ".join(AuditKind),
        )
        self._page = compressed(content.encode(), PAGE_FIELDS)

    def routes(self) -> Iterator[Route]:
        """The one."""
        yield Route(method="GET", path=CONSOLE_PATH, handler=self.page, direct=True, name="console_page")

    async def page(self, request: Request) -> Response:
        """The page."""
        return self._page.respond(request)
