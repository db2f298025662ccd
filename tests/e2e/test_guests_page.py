"""Guests and sessions on the page, in a real browser over a real server: with the keyboard, and without complaints of
axe."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import httpx
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.e2e.browsing import PAGE_TIMEOUT_MS, act, collect_errors, in_browser, open_page
from tests.e2e.server_processes import ServerProcess

StartNode = Callable[..., ServerProcess]
PASSWORD = "three blind mice"


def play_as_guest(page: Page) -> str:
    """By the keyboard; the guest's name."""
    page.get_by_role("button", name="Play as guest").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#me")).to_be_visible()
    expect(page.locator("#keep")).to_be_visible()
    return page.locator("#name").inner_text()


@in_browser
def test_a_guest_plays_comes_back_and_makes_an_account(visitor: BrowserContext, start_node: StartNode) -> None:
    """Points stay with the name; after a log-out the same guest comes back. With the account the device key is gone,
    and the offer too; the page goes on as this user."""
    node = start_node(accounts__guests="true")
    page = open_page(visitor, node.url)
    complaints = collect_errors(page)
    name = play_as_guest(page)
    assert name.startswith("Player-")
    expect(page.get_by_text("Change password").first).to_be_hidden()
    points = act(page)
    page.get_by_role("button", name="Log out").click()
    expect(page.locator("#enter")).to_be_visible()
    assert play_as_guest(page) == name
    expect(page.locator("#score")).to_have_text(str(points), timeout=PAGE_TIMEOUT_MS)
    page.reload()
    expect(page.locator("#keep")).to_be_visible(timeout=PAGE_TIMEOUT_MS)

    page.get_by_text("Keep your score").click()
    username = f"Ada {uuid4().hex[:6]}"
    form = page.locator("#link")
    form.get_by_label("User name").fill(username)
    form.get_by_label("E-mail").fill("nobody")
    form.get_by_label("Password", exact=True).fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(form.get_by_label("E-mail")).to_be_focused()
    form.get_by_label("E-mail").fill(f"{uuid4().hex}@example.org")
    form.get_by_label("Password", exact=True).fill("password123")
    page.keyboard.press("Enter")
    expect(form.get_by_label("Password", exact=True)).to_have_accessible_description(
        "must not be one of the most used passwords"
    )
    assert not Axe().run(page).response["violations"]
    form.get_by_label("Password", exact=True).fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator("#name")).to_have_text(username, timeout=PAGE_TIMEOUT_MS)
    expect(page.locator("#keep")).to_be_hidden()
    expect(page.get_by_text("Change password").first).to_be_visible()
    assert page.evaluate("localStorage.getItem('scoreboard:device')") is None
    # the old session is closed by the server, and the page is live again with the new one
    expect(page.locator("#score")).to_have_text(str(points))
    act(page)
    errors = [text for text in complaints if "400" not in text]  # a refused form is an error of the console
    assert errors == []
    page.get_by_role("button", name="Log out", exact=True).click()
    page.locator("#username").fill(username)
    page.locator("#password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#name")).to_have_text(username, timeout=PAGE_TIMEOUT_MS)
    expect(page.locator("#score")).to_have_text(str(2 * points), timeout=PAGE_TIMEOUT_MS)


@in_browser
def test_one_sees_and_ends_ones_sessions(browser: Browser, visitor: BrowserContext, start_node: StartNode) -> None:
    """Another browser is listed and logged out from here, by its button; it notices within seconds."""
    node = start_node()
    name = f"Eve {uuid4().hex[:6]}"
    body = {"username": name, "email": f"{uuid4().hex}@example.org", "password": PASSWORD}
    assert httpx.post(f"{node.url}/api/v1/auth/register", json=body).status_code == httpx.codes.CREATED
    elsewhere = browser.new_context()
    pages = [open_page(visitor, node.url), open_page(elsewhere, node.url)]
    for page in pages:
        page.get_by_label("User name").fill(name)
        page.get_by_label("Password", exact=True).fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        expect(page.locator("#name")).to_have_text(name, timeout=PAGE_TIMEOUT_MS)
    here, there = pages
    here.get_by_text("Where you are logged in").click()
    rows = here.locator("#sessions li")
    expect(rows).to_have_count(3)
    expect(rows.filter(has_text="Chrome on Linux")).to_have_count(2)
    expect(rows.filter(has_text="here, now")).to_have_count(1)
    expect(rows.filter(has_text="here, now").get_by_role("button")).to_have_count(0)
    assert not Axe().run(here).response["violations"]
    here.get_by_role("button", name="Log out Python").click()
    expect(rows).to_have_count(2)
    expect(here.locator("#sessions summary")).to_be_focused()
    here.get_by_role("button", name="Log out everywhere else").click()
    expect(rows).to_have_count(1)
    expect(here.locator("#said")).to_have_text("All others are logged out.")
    expect(there.locator("#enter")).to_be_visible(timeout=PAGE_TIMEOUT_MS)
    expect(here.locator("#name")).to_have_text(name)
    elsewhere.close()


@in_browser
def test_a_page_without_guests_has_no_button(visitor: BrowserContext, start_node: StartNode) -> None:
    page = open_page(visitor, start_node().url)
    expect(page.get_by_role("button", name="Log in")).to_be_visible()
    expect(page.get_by_role("button", name="Play as guest")).to_have_count(0)
    expect(page.locator("#keep")).to_have_count(0)
