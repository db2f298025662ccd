"""axe finds nothing to object to: the page, the stage and the element, light and dark, in each state that a visitor may
meet."""

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.e2e.browsing import PAGE_TIMEOUT_MS, in_browser
from tests.e2e.fake_board import FakeBoard, entries
from tests.e2e.test_states import SCORED, SESSION, enter, refuse

ROWS = [(f"Player {number}", 12_340 - 100 * number) for number in range(8)] + [("W" * 50, 10_000), ("漢字" * 10, 9_000)]


def objections(page: Page) -> list[str]:
    """What axe has against the page as it is now, and where."""
    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [
        f"{page.url} {one['id']}: {node['target']} {node['failureSummary']}" for one in found for node in one["nodes"]
    ]


def open_as(context: BrowserContext, path: str, width: int) -> tuple[Page, FakeBoard]:
    context.set_default_timeout(PAGE_TIMEOUT_MS)
    fake = FakeBoard(context, ROWS)
    session = {"success": True, "data": SESSION}
    fake.api = {
        "/auth/login": (200, session),
        "/auth/refresh": (200, session),
        "/scores/action": (200, {"success": True, "data": SCORED}),
    }
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": 800})
    return fake.open(page, path), fake


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Browser, scheme: Any) -> None:
    """Logged out, with errors in the form, with changes marked, reconnecting, logged in, while a password is changed;
    stage and element."""
    context = browser.new_context(color_scheme=scheme, reduced_motion="reduce", bypass_csp=True)
    page, fake = open_as(context, "/", 1280)
    found = objections(page)
    page.evaluate("rows => server.draw(rows)", entries([("Player 0", 20_000), ROWS[2], ROWS[1], *ROWS[3:]]))
    page.get_by_role("button", name="New here?").click()
    page.get_by_role("button", name="Create account").click()
    found += objections(page)
    page.get_by_role("button", name="I have an account").click()
    enter(page)
    page.locator("[data-action=quiz_complete]").click()
    expect(page.locator("#note")).to_contain_text("points")
    found += objections(page)
    page.get_by_text("Change password").first.click()
    fake.api["/users/me/password"] = (
        400,
        refuse("INVALID_REQUEST", "", errors=[{"field": "newPassword", "message": "is too common"}]),
    )
    page.get_by_label("Current password").fill("a long password")
    page.get_by_label("New password").fill("password123")
    page.keyboard.press("Enter")
    expect(page.get_by_label("New password")).to_have_accessible_description("is too common")
    page.evaluate("Math.random = () => 0.99; for (const socket of server.open) socket.onclose({ code: 1013 })")
    expect(page.get_by_role("button", name="Try now")).to_be_visible()
    found += objections(page)
    page.set_viewport_size({"width": 390, "height": 844})
    found += objections(page)
    context.close()
    for path in ("/?stage", "/embed"):
        context = browser.new_context(color_scheme=scheme, reduced_motion="reduce", bypass_csp=True)
        page, _ = open_as(context, path, 360)
        found += objections(page)
        context.close()
    assert not found, "\n".join(found)
