"""The page in a real browser: what a person sees and does, over the real server, in Debian's Chromium.

Each test is a visitor with a fresh profile. Nobody is named here: players are taken from the board that the page shows, so that
any demo data will do; each test plays another one, with an action that has no cooldown: who knows what they did before.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, WebSocketRoute, expect, sync_playwright

from scoreboard.web.page import SHOWN, PageAction, render_context

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 10_000  # ms; bounds a hang, measures nothing
FREE = "[data-action][data-cooldown^='0']"  # the button of an action that can be done at any time
TEMPLATES = Path(__file__).parents[2] / "scoreboard" / "web" / "templates"

in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def visitor(browser: Browser) -> Iterator[BrowserContext]:
    """A visitor, who may open several tabs; `complaints` of each tab are what its console and its CSP said."""
    context = browser.new_context()
    context.set_default_timeout(PATIENCE)
    context.add_init_script(
        "addEventListener('securitypolicyviolation', (e) => console.error('CSP ' + e.violatedDirective + ' ' + e.blockedURI))"
    )
    yield context
    context.close()


def listen(page: Page) -> list[str]:
    """Everything that goes wrong in this tab from now on, in words."""
    complaints: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            complaints.append(message.text)

    page.on("console", heard)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return complaints


def open_page(visitor: BrowserContext, url: str) -> Page:
    page = visitor.new_page()
    page.goto(url)
    expect(page.locator("#state")).to_contain_text("Live", timeout=PATIENCE)
    return page


def player(page: Page, live_server: Any, rank: int) -> tuple[str, str]:
    """User name and password of whoever has this rank now."""
    username, password = live_server.user(page.locator(f"#board tr:nth-child({rank}) bdi").inner_text())
    return username, password


def log_in(page: Page, username: str, password: str) -> None:
    page.get_by_label("User name").fill(username)
    page.get_by_label("Password", exact=True).fill(password)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#name")).to_have_text(username, timeout=PATIENCE)
    expect(page.locator("#score")).to_have_text(re.compile(r"\d"), timeout=PATIENCE)


def score(page: Page, username: str) -> int:
    row = page.locator("#board tr").filter(has=page.get_by_text(username, exact=True))
    return int(row.locator("td").last.inner_text().replace(",", ""))


@in_browser
def test_first_paint_has_the_board(browser: Browser, live_server: Any) -> None:
    """Without JavaScript the page shows the present board and says that it is not live."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(live_server.url)
    expect(page.locator("#board tr")).to_have_count(SHOWN)
    expect(page.locator("#board tr").first.locator("td").last).to_have_text(re.compile(r"^[\d,]+\s*$"))
    expect(page.locator("noscript p")).to_be_visible()
    context.close()


@in_browser
def test_an_action_is_seen_in_a_second_tab(visitor: BrowserContext, live_server: Any) -> None:
    """Who logs in and completes an action sees points and rank, and another tab's board changes; nobody's console complains."""
    watching = open_page(visitor, live_server.url)
    acting = visitor.new_page()
    complaints = [listen(watching), listen(acting)]
    acting.goto(live_server.url)
    username, password = player(acting, live_server, 1)
    log_in(acting, username, password)
    before = score(watching, username)
    with acting.expect_request("**/api/v1/scores/action") as request:
        acting.locator(FREE).click()
    assert re.fullmatch(r"v\d+\.[0-9a-f]{64}", request.value.headers["x-action-signature"])
    expect(acting.locator("#note")).to_have_text(re.compile(r"^\+\d+ points\. You are number 1\."), timeout=PATIENCE)
    points = int(re.search(r"\d+", acting.locator("#note").inner_text())[0])  # type: ignore[index]
    for page in (watching, acting):
        expect(page.locator("#board tr").first.locator("td").last).to_have_text(f"{before + points:,}", timeout=PATIENCE)
    expect(watching.locator("#board tr").first.locator("td").nth(1)).to_have_text(f"+{points}")
    expect(acting.locator("#board tr.me")).to_contain_text(username)
    assert complaints == [[], []]


@in_browser
def test_keyboard_alone_is_enough(visitor: BrowserContext, live_server: Any) -> None:
    """Log-in and action work without a pointer, and the focus is where one goes on."""
    page = open_page(visitor, live_server.url)
    username, password = player(page, live_server, 2)
    page.keyboard.press("Tab")
    page.keyboard.type(username)
    page.keyboard.press("Tab")
    page.keyboard.type(password)
    page.keyboard.press("Enter")
    expect(page.locator("[data-action]").first).to_be_focused(timeout=PATIENCE)
    free = page.locator(FREE)
    for _ in range(page.locator("[data-action]").count()):
        if not free.evaluate("(button) => button === document.activeElement"):
            page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#said")).to_have_text(re.compile(r"^\+\d+ points"), timeout=PATIENCE)
    expect(free).to_be_focused()


@in_browser
def test_a_session_outlives_a_reload_until_log_out(visitor: BrowserContext, live_server: Any) -> None:
    """A reload restores the session from its cookie, log-out ends it in every tab, and neither asks for what can't be there."""
    page = open_page(visitor, live_server.url)
    complaints = listen(page)
    username, password = player(page, live_server, 3)
    log_in(page, username, password)
    page.reload()
    expect(page.locator("#name")).to_have_text(username, timeout=PATIENCE)
    other = open_page(visitor, live_server.url)
    expect(other.locator("#name")).to_have_text(username, timeout=PATIENCE)
    page.get_by_role("button", name="Log out").click()
    for tab in (page, other):
        expect(tab.get_by_role("button", name="Log in")).to_be_visible()
        expect(tab.locator("#state")).to_contain_text("Live", timeout=PATIENCE)
    page.reload()
    expect(page.locator("#state")).to_contain_text("Live", timeout=PATIENCE)
    expect(page.get_by_role("button", name="Log in")).to_be_visible()
    assert complaints == []


@in_browser
def test_refusals_are_words(visitor: BrowserContext, live_server: Any) -> None:
    """A wrong password, an empty field and a cooldown are each told in words, where they belong."""
    page = open_page(visitor, live_server.url)
    username, password = player(page, live_server, 4)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_label("User name")).to_be_focused()
    expect(page.get_by_label("User name")).to_have_accessible_description(re.compile(r"\w"))
    page.get_by_label("User name").fill(username)
    page.get_by_label("Password", exact=True).fill(f"not {password}")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_have_text("User name or password is wrong.", timeout=PATIENCE)
    log_in(page, username, password)
    page.locator("[data-action]").first.click()
    expect(page.locator("[data-action]").first).to_have_attribute("aria-disabled", "true", timeout=PATIENCE)
    page.reload()  # the page has forgotten the cooldown, the server has not
    expect(page.locator("#name")).to_have_text(username, timeout=PATIENCE)
    page.locator("[data-action]").first.click()
    expect(page.locator("#note")).to_have_text(re.compile(r"needs a pause\. Next in \d+ s\."), timeout=PATIENCE)


@in_browser
def test_without_a_socket_the_board_is_polled(visitor: BrowserContext, live_server: Any) -> None:
    """Cut off from the WebSocket the page says so and still shows what happens; it is live again once it can be."""
    network = SimpleNamespace(cut=False, open=[])

    def dialled(socket: WebSocketRoute) -> None:
        if network.cut:
            socket.close(code=1013)
            return
        socket.connect_to_server()
        network.open.append(socket)

    watching = visitor.new_page()
    watching.route_web_socket("**/api/v1/scores/live", dialled)
    watching.goto(live_server.url)
    expect(watching.locator("#state")).to_contain_text("Live", timeout=PATIENCE)
    network.cut = True
    for socket in network.open:
        socket.close(code=1012)
    expect(watching.locator("#state")).to_contain_text("Polling", timeout=PATIENCE)

    acting = open_page(visitor, live_server.url)
    username, password = player(acting, live_server, 5)
    log_in(acting, username, password)
    before = score(watching, username)
    acting.locator(FREE).click()
    expect(acting.locator("#note")).to_have_text(re.compile(r"^\+\d+ points"), timeout=PATIENCE)
    points = int(re.search(r"\d+", acting.locator("#note").inner_text())[0])  # type: ignore[index]
    row = watching.locator("#board tr").filter(has=watching.get_by_text(username, exact=True))
    expect(row.locator("td").last).to_have_text(f"{before + points:,}", timeout=PATIENCE)
    expect(watching.locator("#state")).to_contain_text("Polling")

    network.cut = False
    watching.evaluate("dispatchEvent(new Event('online'))")  # what the browser says when the network is back
    expect(watching.locator("#state")).to_contain_text("Live", timeout=PATIENCE)


def test_names_are_never_markup() -> None:
    """Whatever people call themselves arrives on the page as text."""
    name = "\"><script>alert('1')</script>"
    entry = SimpleNamespace(rank=1, userId='"><img src=x>', username=name, score=1_234_567, avatarUrl="javascript:alert(1)")
    action = PageAction(name="quiz_complete", title=name, points="10–50", cooldown=30, metadata={"difficulty": name})
    jinja = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True)
    html = jinja.get_template("index.html").render(**render_context([entry], [action]))
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert "javascript:alert" not in html
    assert "1,234,567" in html
    assert html.count("<tr") == SHOWN + 2  # its head and my own row
