"""The page `/audit`, on which a browser checks by itself that an action is in the transparency log.

The page is the same for everybody; static/audit.js asks the API and verifies what it answers. Tested in
tests/e2e/test_audit_page.py.
"""

from collections.abc import Iterator

from jinja2 import Environment, PackageLoader

from scoreboard.domain.paths import AUDIT_PAGE_PATH, STATIC_PREFIX
from scoreboard.http.request import Request, Response
from scoreboard.web.compression import compressed
from scoreboard.web.pages.branding import SHIPPED, Branding
from scoreboard.web.pages.site import PAGE_FIELDS
from scoreboard.web.route import Route


class AuditPage:
    """The page, rendered once with the operator's title and colours."""

    def __init__(self, branding: Branding = SHIPPED) -> None:
        template = Environment(loader=PackageLoader("scoreboard.web"), autoescape=True).get_template("audit.html")
        content = template.render(
            title=branding.title,
            icon=f"{STATIC_PREFIX}{branding.logo or 'favicon.svg'}",
            theme=branding.has_theme,
        )
        self._page = compressed(content.encode(), PAGE_FIELDS)

    def routes(self) -> Iterator[Route]:
        """The one."""
        yield Route(method="GET", path=AUDIT_PAGE_PATH, handler=self.page, direct=True, name="audit_page")

    async def page(self, request: Request) -> Response:
        """The page."""
        return self._page.respond(request)
