"""The page in a real browser: what a person sees and does, over the real server, in Debian's Chromium.

Each test is a visitor with a fresh profile. Nobody is named here: players are taken from the board that the page shows,
so that any demo data will do; each test plays another one, with an action that has no cooldown: who knows what they did
before.
"""

from __future__ import annotations

import re
from hmac import digest
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import jinja2
from playwright.sync_api import Browser, BrowserContext, expect

from scoreboard.domain.boards import TOP_SIZE
from scoreboard.web.pages.first_paint import PageAction, render_context
from tests.e2e.browsing import (
    FREE,
    PAGE_TIMEOUT_MS,
    PLAIN_HOST,
    act,
    collect_errors,
    expect_state,
    in_browser,
    log_in,
    open_page,
    player,
    row,
    score,
)

TEMPLATES = Path(__file__).parents[2] / "scoreboard" / "web" / "templates"

# Records every movement on the page.
WATCH_MOVEMENT = """
window.moves = [];
const { animate } = Element.prototype;
Element.prototype.animate = function (frames, options) {
  moves.push({ what: Object.keys(frames).sort().join(), duration: options.duration });
  return animate.call(this, frames, options);
};
"""


@in_browser
def test_first_paint_has_the_board(browser: Browser, live_server: Any) -> None:
    """Without JavaScript the page shows the present board and says that it is not live."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(live_server.url)
    expect(page.locator("#board tr")).to_have_count(TOP_SIZE)
    expect(page.locator("#board tr").first.locator("td").last).to_have_text(re.compile(r"^[\d,]+\s*$"))
    expect(page.locator("noscript p")).to_be_visible()
    context.close()


@in_browser
def test_an_action_is_seen_in_a_second_tab(visitor: BrowserContext, live_server: Any) -> None:
    """Who logs in and completes an action sees points and rank, and another tab's board changes; nobody's console
    complains."""
    watching = open_page(visitor, live_server.url)
    acting = visitor.new_page()
    complaints = [collect_errors(watching), collect_errors(acting)]
    acting.goto(live_server.url)
    username, password = player(acting, live_server, 1)
    log_in(acting, username, password)
    before = score(watching, username)
    with acting.expect_request("**/api/v1/scores/action") as request:
        acting.locator(FREE).click()
    assert re.fullmatch(r"v\d+\.[0-9a-f]{64}", request.value.headers["x-action-signature"])
    expect(acting.locator("#note")).to_have_text(
        re.compile(r"^\+\d+ points\. You are number 1\."), timeout=PAGE_TIMEOUT_MS
    )
    points = int(re.search(r"\d+", acting.locator("#note").inner_text())[0])  # type: ignore[index]
    for page in (watching, acting):
        expect(page.locator("#board tr").first.locator("td").last).to_have_text(
            f"{before + points:,}", timeout=PAGE_TIMEOUT_MS
        )
    expect(watching.locator("#board tr").first.locator("td").nth(1)).to_have_text(f"+{points}")
    expect(acting.locator("#board tr.me")).to_contain_text(username)
    assert complaints == [[], []]


@in_browser
def test_actions_are_signed_over_plain_http_too(visitor: BrowserContext, live_server: Any) -> None:
    """Where the browser has no crypto.subtle: a page of another machine in one's own network, without a certificate."""
    page = open_page(visitor, live_server.url.replace("127.0.0.1", PLAIN_HOST))
    complaints = collect_errors(page)
    assert page.evaluate("isSecureContext || Boolean(crypto.subtle)") is False
    log_in(page, *player(page, live_server, 3))
    assert act(page) > 0
    assert complaints == []


@in_browser
def test_its_hmac_is_the_standards(visitor: BrowserContext, live_server: Any) -> None:
    """RFC 2104 over FIPS 180-4, for keys and texts of every length around the block's."""
    page = open_page(visitor, live_server.url)
    lengths = [0, 1, 31, 32, 55, 56, 63, 64, 65, 119, 120, 127, 128, 129, 1000, 16_384]
    pairs = [(key, text) for key in lengths[:14] for text in lengths]
    program = """async (pairs) => {
      const { hmacSha256 } = await import('/static/sha256.js');
      const bytes = (length) => Uint8Array.from({ length }, (_, place) => (place * 167 + length) % 256);
      return pairs.map(([key, text]) => [...hmacSha256(bytes(key), bytes(text))]);
    }"""
    computed = page.evaluate(program, pairs)

    def made(length: int) -> bytes:
        return bytes((place * 167 + length) % 256 for place in range(length))

    assert [bytes(one) for one in computed] == [digest(made(key), made(text), "sha256") for key, text in pairs]


@in_browser
def test_keyboard_alone_is_enough(visitor: BrowserContext, live_server: Any) -> None:
    """Log-in and action work without a pointer, and the focus is where one goes on."""
    page = open_page(visitor, live_server.url)
    username, password = player(page, live_server, 2)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Stage")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.type(username)
    page.keyboard.press("Tab")
    page.keyboard.type(password)
    page.keyboard.press("Enter")
    expect(page.locator("[data-action]").first).to_be_focused(timeout=PAGE_TIMEOUT_MS)
    free = page.locator(FREE)
    for _ in range(page.locator("[data-action]").count()):
        if not free.evaluate("(button) => button === document.activeElement"):
            page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#said")).to_have_text(re.compile(r"^\+\d+ points"), timeout=PAGE_TIMEOUT_MS)
    expect(free).to_be_focused()


@in_browser
def test_who_registers_with_an_umlaut_domain_logs_in_with_it(visitor: BrowserContext, start_node: Any) -> None:
    """The browser encodes the domain for the field of the registration, and not for the one of the log-in."""
    page = open_page(visitor, start_node().url)
    page.get_by_role("button", name="New here?").click()
    page.get_by_label("User name").fill("Jo Umlaut")
    page.get_by_label("E-mail").fill("jo@m\u00fcller.example")
    page.get_by_label("Password", exact=True).fill("drei alte elche")
    page.get_by_role("button", name="Create account").click()
    expect(page.locator("#name")).to_have_text("Jo Umlaut", timeout=PAGE_TIMEOUT_MS)
    page.get_by_role("button", name="Log out").click()
    expect(page.locator("#name")).to_be_hidden()
    page.get_by_role("button", name="I have an account").click()
    page.get_by_label("User name").fill("jo@m\u00fcller.example")
    page.get_by_label("Password", exact=True).fill("drei alte elche")
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#name")).to_be_visible(timeout=PAGE_TIMEOUT_MS)


@in_browser
def test_a_session_outlives_a_reload_until_log_out(visitor: BrowserContext, live_server: Any) -> None:
    """A reload restores the session from its cookie, log-out ends it in every tab, and neither asks for what can't be
    there."""
    page = open_page(visitor, live_server.url)
    complaints = collect_errors(page)
    username, password = player(page, live_server, 3)
    log_in(page, username, password)
    page.reload()
    expect(page.locator("#name")).to_have_text(username, timeout=PAGE_TIMEOUT_MS)
    other = open_page(visitor, live_server.url)
    expect(other.locator("#name")).to_have_text(username, timeout=PAGE_TIMEOUT_MS)
    page.get_by_role("button", name="Log out").click()
    for tab in (page, other):
        expect(tab.get_by_role("button", name="Log in")).to_be_visible()
        expect(tab.locator("#state")).to_contain_text("Live", timeout=PAGE_TIMEOUT_MS)
    page.reload()
    expect(page.locator("#state")).to_contain_text("Live", timeout=PAGE_TIMEOUT_MS)
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
    expect(page.get_by_role("alert")).to_have_text("User name or password is wrong.", timeout=PAGE_TIMEOUT_MS)
    log_in(page, username, password)
    page.locator("[data-action]").first.click()
    expect(page.locator("[data-action]").first).to_have_attribute("aria-disabled", "true", timeout=PAGE_TIMEOUT_MS)
    page.evaluate("localStorage.removeItem('scoreboard:cooldowns')")
    page.reload()  # this browser has forgotten the cooldown, the server has not
    expect(page.locator("#name")).to_have_text(username, timeout=PAGE_TIMEOUT_MS)
    page.locator("[data-action]").first.click()
    expect(page.locator("#note")).to_have_text(re.compile(r"needs a pause\. Next in \d+ s\."), timeout=PAGE_TIMEOUT_MS)


@in_browser
def test_what_moves_travels(visitor: BrowserContext, live_server: Any) -> None:
    """A row that rises travels to its place by transform alone, within 400 ms, and its change is marked."""
    visitor.add_init_script(WATCH_MOVEMENT)
    moves = climb(visitor, live_server)
    assert moves
    assert {move["what"] for move in moves} == {"transform,zIndex"}
    assert all(300 <= move["duration"] <= 400 for move in moves)


@in_browser
def test_with_reduced_motion_nothing_moves(browser: Browser, live_server: Any) -> None:
    """Who asked for reduced motion sees the same board and the same marks, and no movement."""
    context = browser.new_context(reduced_motion="reduce")
    context.add_init_script(WATCH_MOVEMENT)
    assert climb(context, live_server) == []
    context.close()


def climb(visitor: BrowserContext, live_server: Any) -> list[dict[str, Any]]:
    """Has the player on rank 5 climb in front of a watcher; what moved there."""
    watching, acting = open_page(visitor, live_server.url), open_page(visitor, live_server.url)
    username, password = player(acting, live_server, 5)
    log_in(acting, username, password)
    before = score(watching, username)
    ahead = int(watching.locator("#board tr:nth-child(4) td").last.inner_text().replace(",", ""))
    points = 0
    while before + points <= ahead:
        points += act(acting)
        expect(row(watching, username).locator("td").last).to_have_text(f"{before + points:,}", timeout=PAGE_TIMEOUT_MS)
    expect(row(watching, username).locator("td").nth(1)).to_have_text(re.compile("▲"), timeout=PAGE_TIMEOUT_MS)
    moves: list[dict[str, Any]] = watching.evaluate("moves")
    return moves


@in_browser
def test_i_see_where_i_stand(visitor: BrowserContext, live_server: Any) -> None:
    """Who is logged in sees how far the next rank is, their true rank below the shown rows, and what this session
    gave."""
    page = open_page(visitor, live_server.url)
    leader, password = player(page, live_server, 1)
    last, _ = player(page, live_server, 2)
    log_in(page, last, password)
    missing = score(page, leader) - score(page, last) + 1
    expect(page.locator("#ahead")).to_have_text(re.compile(rf"^{missing:,} to pass .?{leader}"))
    expect(page.locator("#mine tr")).to_be_hidden()
    points = act(page)
    expect(page.locator("#gained")).to_have_text(f"+{points} this session")
    assert len(page.locator("#sparkline polyline").get_attribute("points").split()) > 2  # type: ignore[union-attr]
    page.get_by_role("button", name="Log out").click()
    log_in(page, *live_server.user("demo"))  # whom nobody plays: not among the first
    act(page)
    expect(page.locator("#mine tr td").first).to_have_text(re.compile(r"^\d+$"), timeout=PAGE_TIMEOUT_MS)
    expect(page.locator("#ahead")).to_have_text(re.compile(r"^[\d,]+ to pass "), timeout=PAGE_TIMEOUT_MS)


@in_browser
def test_the_stage_is_the_board_alone(visitor: BrowserContext, live_server: Any) -> None:
    """`/?stage`: ten rows fill the screen, alone, the screen stays awake, the pointer goes; keys fill it and leave
    it."""
    visitor.grant_permissions(["screen-wake-lock"])
    page = visitor.new_page()
    complaints = collect_errors(page)
    page.add_init_script(
        "const { request } = navigator.wakeLock; window.locks = [];"
        "navigator.wakeLock.request = (type) => (locks.push(type), request.call(navigator.wakeLock, type));"
    )
    page.set_viewport_size({"width": 1280, "height": 720})
    page.goto(f"{live_server.url}/?stage")
    expect_state(page, "Live")
    expect(page.locator("aside")).to_have_count(0)
    assert page.evaluate("locks") == ["screen"]
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight")
    bottom = page.locator("#board tr").last.bounding_box()
    assert bottom is not None
    assert bottom["y"] + bottom["height"] > 720 * 0.9
    expect(page.locator("body")).to_have_css("cursor", "none", timeout=PAGE_TIMEOUT_MS)
    page.mouse.move(300, 300)
    expect(page.get_by_role("button", name="Full screen")).to_be_visible()
    page.keyboard.press("f")
    expect(page.locator("html:fullscreen")).to_have_count(1, timeout=PAGE_TIMEOUT_MS)
    page.keyboard.press("f")
    expect(page.locator("html:fullscreen")).to_have_count(0, timeout=PAGE_TIMEOUT_MS)
    page.keyboard.press("Escape")
    page.wait_for_url(live_server.url + "/")
    assert complaints == []


@in_browser
def test_a_long_name_is_whole(browser: Browser, live_server: Any) -> None:
    """The leader's name, set tight and large, ends inside its box: no letter is cut where there is room."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = open_page(context, live_server.url)
    reach = (
        page.locator("#board tr")
        .first.locator("bdi")
        .evaluate(
            """(name) => {
          name.textContent = 'SwiftSparrow';
          const style = getComputedStyle(name);
          const pen = document.createElement('canvas').getContext('2d');
          pen.font = style.font;
          pen.letterSpacing = style.letterSpacing;
          const ink = pen.measureText('SwiftSparrow');
          return name.clientWidth - Math.max(ink.actualBoundingBoxRight, ink.width);
        }"""
        )
    )
    assert reach >= 0
    context.close()


def test_without_cooldowns_no_button_rests(start_node: Any) -> None:
    """limits.cooldowns = false: the server has nobody wait, and neither has the page."""
    page = httpx.get(start_node(limits__cooldowns="false").url).text
    assert set(re.findall(r'data-cooldown="([^"]*)"', page)) == {"0"}


def test_names_are_never_markup() -> None:
    """Whatever people call themselves arrives on the page as text."""
    name = "\"><script>alert('1')</script>"
    entry = SimpleNamespace(
        rank=1, userId='"><img src=x>', username=name, score=1_234_567, avatarUrl="javascript:alert(1)"
    )
    action = PageAction(name="quiz_complete", title=name, points="10–50", cooldown=30, metadata={"difficulty": name})
    jinja = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True)
    html = jinja.get_template("index.html").render(**render_context([entry], [action]))
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert "javascript:alert" not in html
    assert "1,234,567" in html
    assert html.count("<tr") == TOP_SIZE + 2  # its head and my own row
