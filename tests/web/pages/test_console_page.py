"""The console's page without a browser; tests/e2e/test_console.py has the rest."""

from scoreboard.domain.audit import AuditKind
from scoreboard.web.pages.console_page import ConsolePage
from tests.web.requests import request


async def content(page: ConsolePage) -> str:
    body = (await page.page(request(target=b"/console"))).body
    return bytes(body).decode()


async def test_the_way_to_other_log_ins_is_shown_where_there_are_any() -> None:
    """On a port of its own the console can't know a session of the board's page."""
    assert "log in on the board" in await content(ConsolePage(links_to_board=True))
    assert "log in on the board" not in await content(ConsolePage())


async def test_the_log_can_be_filtered_by_every_kind_of_event() -> None:
    assert f'data-kinds="{" ".join(AuditKind)}"' in await content(ConsolePage())
