"""What the page says and keeps: whether the server answers, when something changed last, cooldowns, languages, paper,
phones, passwords.

Most of it with a server that is played in the tab (fake_board), since a server has to fall silent at a test's command.
"""

import json
import signal
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic, sleep
from typing import Any

import jinja2
import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page, expect

from scoreboard.web.pages.first_paint import render_context
from tests.e2e.browsing import CHROMIUM, FLAGS, PAGE_TIMEOUT_MS, Player, expect_state, in_browser, log_in, open_page
from tests.e2e.fake_board import ORIGIN, WEB, FakeBoard, entries

ROWS = [("Ada", 1234), ("Grace", 1200), ("Linus", 900)]
SESSION = {
    "userId": "user-2",
    "username": "Grace",
    "accessToken": "token",
    "expiresIn": 900,
    "actionSecret": "secret",
    "actionKeyVersion": 1,
    "actionSecretExpiresAt": "2030-01-01T00:00:00.000Z",
}
SCORED = {
    "userId": "user-2",
    "previousScore": 1200,
    "pointsAwarded": 30,
    "newScore": 1230,
    "newRank": 2,
    "timestamp": "2026-01-02T03:04:05.000Z",
}


def refuse(code: str, detail: str, **more: Any) -> dict[str, Any]:
    return {"success": False, "code": code, "detail": detail, **more}


@pytest.fixture
def fake(visitor: BrowserContext) -> FakeBoard:
    """A board of three, and Grace, who can log in and act."""
    fake = FakeBoard(visitor, ROWS)
    session = {"success": True, "data": SESSION}
    fake.api = {
        "/auth/login": (200, session),
        "/auth/refresh": (200, session),
        "/scores/action": (200, {"success": True, "data": SCORED}),
    }
    fake.api["/auth/logout"] = (204, None)
    return fake


def enter(page: Page) -> None:
    log_in(page, "Grace", "a long password")


# ---- whether the server answers -----------------------------------------------------------------------------------


WATCH_WORDS = """() => {
  const line = document.querySelector('#state b + span');
  window.words = [line.textContent];
  const all = { childList: true, characterData: true, subtree: true };
  new MutationObserver(() => words.push(line.textContent)).observe(line, all);
}"""


@in_browser
def test_a_frozen_server_is_seen_within_five_seconds(visitor: BrowserContext, start_node: Any) -> None:
    """A node that is stopped in its tracks no longer counts as live on any transport; when it goes on, so does the
    page."""
    node = start_node(limits__user_per_minute="0")
    Player(node.url, "Ada").act()
    websocket, streamed, polled = visitor.new_page(), visitor.new_page(), visitor.new_page()
    frames: list[str | bytes] = []

    def on_frame(frame: str | bytes) -> None:
        frames.append(frame)

    websocket.on("websocket", lambda socket: socket.on("framereceived", on_frame))
    websocket.goto(node.url)
    streamed.add_init_script("sessionStorage['scoreboard:transport'] = 'SSE'")
    streamed.goto(node.url)
    expect_state(streamed, "SSE")
    polled.add_init_script("sessionStorage['scoreboard:transport'] = 'polling'")
    polled.goto(node.url)
    expect_state(polled, "Polling")
    polled.evaluate(WATCH_WORDS)
    deadline = monotonic() + PAGE_TIMEOUT_MS / 1000
    while '{"event":"heartbeat"}' not in frames and monotonic() < deadline:
        websocket.wait_for_timeout(100)
    for page in (websocket, streamed):
        expect_state(page, "Live")
    assert polled.evaluate("words") == ["Polling"]  # for seconds: nothing is amiss while nothing changes
    node.signal(signal.SIGSTOP)
    for page in (websocket, streamed, polled):
        expect(page.locator("#state")).to_contain_text("No answer since", timeout=8000)
    expect(websocket.get_by_role("button", name="Try now")).to_be_visible()
    node.signal(signal.SIGCONT)
    for page in (websocket, streamed):
        expect_state(page, "Live")
    expect_state(polled, "Polling")
    expect(websocket.get_by_role("button", name="Try now")).to_be_hidden()


@in_browser
def test_silence_shows_after_what_was_promised(fake: FakeBoard, visitor: BrowserContext) -> None:
    """By the clock: live for as long as heartbeats come, no answer 5 s after the last one, another connection when it
    stays so."""
    page = visitor.new_page()
    page.clock.install()
    fake.open(page)
    expect_state(page, "Live")
    for _ in range(20):
        page.clock.run_for(3000)
        page.evaluate("server.sendEvent('heartbeat')")
        assert "Live" in page.locator("#state").inner_text()
    page.evaluate("server.frozen = true")
    page.clock.run_for(5250)
    assert "No answer since" in page.locator("#state").inner_text()
    page.evaluate("server.frozen = false; server.sendEvent('heartbeat')")
    assert "Live" in page.locator("#state").inner_text()
    page.evaluate("server.frozen = true")
    page.clock.run_for(25_000)
    assert page.evaluate("server.dialled") > 1


@in_browser
def test_nobody_has_to_wait_for_the_next_try(fake: FakeBoard, visitor: BrowserContext) -> None:
    """While it waits to reconnect there is a button that does so at once, on the page, on the stage and in the
    element."""
    visitor.add_init_script("Math.random = () => 0.99")
    for path, line in (("/", "#state"), ("/?stage", "#state"), ("/embed", "live-scoreboard p")):
        page = fake.open(visitor.new_page(), path)
        says_so = page.locator(line)
        expect(says_so).to_contain_text("Live")
        page.evaluate("for (const socket of server.open) socket.onclose({ code: 1013 })")
        expect(says_so).to_contain_text("Next try in")
        dialled = page.evaluate("server.dialled")
        page.get_by_role("button", name="Try now").click()
        expect(says_so).to_contain_text("Live")
        assert page.evaluate("server.dialled") == dialled + 1
        expect(page.get_by_role("button", name="Try now")).to_be_hidden()


@in_browser
def test_that_the_server_does_not_answer_goes_when_it_answers(fake: FakeBoard, visitor: BrowserContext) -> None:
    """The words beside the button that was pressed are taken back as soon as the server answers anything."""
    page = visitor.new_page()
    page.clock.install()
    fake.open(page)
    page.route("**/favicon.svg", lambda route: route.abort() if fake.is_down else route.fallback())
    fake.is_down = True
    page.get_by_label("User name").fill("Grace")
    page.get_by_label("Password", exact=True).fill("a long password")
    page.get_by_role("button", name="Log in").click()
    alert = page.locator("#enter [role=alert]")
    expect(alert).to_contain_text("The server does not answer")
    for _ in range(3):
        with page.expect_request("**/favicon.svg"):
            page.clock.run_for(2100)
        expect(alert).to_contain_text("The server does not answer")
    fake.is_down = False
    page.clock.run_for(2100)
    expect(alert).to_have_text("")
    expect(page.get_by_label("User name")).to_have_value("Grace")


# ---- what is kept -------------------------------------------------------------------------------------------------


@in_browser
def test_the_last_change_is_a_change(fake: FakeBoard, visitor: BrowserContext) -> None:
    """Neither a reconnect nor a board that was built anew, with the same rows under a new time, is the last change."""
    page = fake.open(visitor.new_page())
    expect(page.locator("#state")).to_contain_text("1/2/2026, 3:04:05")
    page.evaluate("server.timestamp = '2026-02-03T04:05:06.000Z'; server.draw(server.rows)")
    page.evaluate("for (const socket of server.open) socket.onclose({ code: 1012 })")
    page.wait_for_function("server.dialled > 1 && server.open.size > 0")
    expect_state(page, "Live")
    expect(page.locator("#state")).to_contain_text("1/2/2026, 3:04:05")
    page.evaluate("rows => server.draw(rows)", entries([("Ada", 1240), *ROWS[1:]]))
    expect(page.locator("#state")).to_contain_text("2/3/2026, 4:05:06")


@in_browser
def test_cooldowns_survive_a_reload(fake: FakeBoard, visitor: BrowserContext) -> None:
    """A button that cools down does so after a reload and in another tab, and for nobody else who logs in there."""
    page = fake.open(visitor.new_page())
    enter(page)
    quiz = page.locator("[data-action=quiz_complete]")
    quiz.click()
    expect(quiz).to_have_attribute("aria-disabled", "true")
    page.reload()
    expect(quiz).to_have_attribute("aria-disabled", "true")
    expect(page.locator("[data-action=friend_invite]")).not_to_have_attribute("aria-disabled", "true")
    other = fake.open(visitor.new_page())
    expect(other.locator("[data-action=quiz_complete]")).to_have_attribute("aria-disabled", "true")
    page.get_by_role("button", name="Log out").click()
    linus = {"success": True, "data": {**SESSION, "userId": "user-3", "username": "Linus"}}
    fake.api |= {"/auth/login": (200, linus), "/auth/refresh": (200, linus)}
    log_in(page, "Linus", "a long password")
    expect(quiz).not_to_have_attribute("aria-disabled", "true")


@in_browser
def test_a_session_that_has_ended_stays_so(fake: FakeBoard, visitor: BrowserContext) -> None:
    """What was logged out, never logged in or could not be resumed asks nothing when another tab logs in; a session
    hears of its end."""
    mine, other = fake.open(visitor.new_page(), "/embed"), fake.open(visitor.new_page(), "/embed")
    who = {"username": "Grace", "password": "a long password"}
    setup = "async (who) => { Object.assign(window, await import('/scoreboard.js'), { who }); "
    good = fake.api["/auth/login"]
    mine.evaluate(setup + "window.ended = await login(who); await logout(ended); }", who)
    fake.api["/auth/login"] = (401, refuse("UNAUTHORIZED", "no"))
    assert mine.evaluate("login(who).catch(({ status }) => status)") == 401
    fake.api |= {"/auth/login": good, "/auth/refresh": (500, {})}
    mine.evaluate("localStorage['scoreboard:user'] = 'user-2'")
    assert mine.evaluate("resume().catch(({ status }) => status)") == 500
    fake.api["/auth/refresh"] = (401, refuse("UNAUTHORIZED", "no"))
    assert mine.evaluate("resume()") is None
    mine.evaluate("localStorage.removeItem('scoreboard:user')")

    fake.api["/auth/refresh"] = good
    fake.asked.clear()
    other.evaluate(setup + "window.session = await login(who); }", who)
    mine.wait_for_function("localStorage['scoreboard:user'] === 'user-2'")
    mine.wait_for_timeout(300)  # for what must not happen
    assert [path for path, _ in fake.asked] == ["/auth/login"]
    assert mine.evaluate("ended.token()") is None
    mine.evaluate("resume().then((session) => { window.session = session; })")
    other.evaluate("logout(session)")
    mine.wait_for_function("session.user === null")


@in_browser
def test_whoever_logs_out_is_not_told_that_the_session_has_ended(fake: FakeBoard, visitor: BrowserContext) -> None:
    """In no tab: the form is there, ready to be typed in. A session that the server has ended is told as such."""
    page, other = fake.open(visitor.new_page()), fake.open(visitor.new_page())
    enter(page)
    expect(other.locator("#name")).to_have_text("Grace")
    page.get_by_role("button", name="Log out").click()
    for tab in (page, other):
        expect(tab.get_by_role("button", name="Log in")).to_be_visible()
        expect(tab.locator("#form-error")).to_have_text("")
    expect(page.locator("#username")).to_be_focused()
    other.close()
    enter(page)
    fake.api |= {
        path: (401, refuse("UNAUTHORIZED", "This session has ended.")) for path in ("/auth/refresh", "/scores/action")
    }
    page.locator("[data-action=quiz_complete]").click()
    expect(page.locator("#form-error")).to_have_text(
        "Your session has ended. Please log in again.", timeout=PAGE_TIMEOUT_MS
    )


@pytest.fixture(scope="module")
def caching(browser: Browser) -> Iterator[Browser]:
    """A browser as people have it, with the back/forward cache that Playwright switches off."""
    running = browser.browser_type.launch(
        executable_path=CHROMIUM, args=FLAGS, ignore_default_args=["--disable-back-forward-cache"]
    )
    yield running
    running.close()


@in_browser
def test_back_is_at_once(caching: Browser, live_server: Any) -> None:
    """Who goes on to another page and comes back finds the page as it was, which the browser has kept, and live
    again."""
    context = caching.new_context()
    page = open_page(context, live_server.url)
    page.evaluate(
        "globalThis.kept = true; addEventListener('pageshow', ({ persisted }) => (globalThis.persisted = persisted))"
    )
    page.goto(live_server.url + "/api/v1/scores/leaderboard")
    page.evaluate("setTimeout(() => history.back())")
    # Playwright knows nothing of pages that were kept: it sees neither where this one is nor its sockets.
    deadline = monotonic() + PAGE_TIMEOUT_MS / 1000
    found = None
    while found != [True, True, "Live"] and monotonic() < deadline:
        sleep(0.1)
        with suppress(Error):  # between two pages
            found = page.evaluate(
                "[globalThis.kept, globalThis.persisted, document.querySelector('#state b + span')?.textContent]"
            )
    assert found == [True, True, "Live"]
    context.close()


# ---- languages, paper, phones -------------------------------------------------------------------------------------


@in_browser
@pytest.mark.parametrize(
    ("locale", "number", "time"), [("de-DE", "1.234", "2.1.2026, 03:04:05"), ("en-US", "1,234", "1/2/2026, 3:04:05")]
)
def test_numbers_and_dates_are_in_the_browsers_language(browser: Browser, locale: str, number: str, time: str) -> None:
    """Also those that the server had written; what is text stays English, and says so."""
    context = browser.new_context(locale=locale, timezone_id="UTC")
    page = FakeBoard(context, ROWS).open(context.new_page())
    expect(page.locator("#board tr").first.locator("td").last).to_have_text(number)
    expect(page.locator("#state")).to_contain_text(time)
    assert page.locator("html").get_attribute("lang") == "en"
    context.close()


@in_browser
@pytest.mark.parametrize("path", ["/", "/?stage"])
def test_paper_has_the_list_alone(fake: FakeBoard, visitor: BrowserContext, path: str) -> None:
    """Printed, page and stage are a list of ranks, whole names and scores with the time of the last change: no form,
    button or state."""
    name = "Wolfeschlegelsteinhausenbergerdorff the Seventh"
    fake.rows[2] = (name, 900)
    page = fake.open(visitor.new_page(), path)
    page.evaluate("rows => server.draw(rows)", entries(fake.rows))
    page.set_viewport_size({"width": 600, "height": 800})
    page.emulate_media(media="print", color_scheme="dark")
    shown = page.evaluate("document.body.innerText")
    assert "last change" in (page.locator("#state").get_attribute("data-changed") or "")  # what the style sheet prints
    assert name in shown
    for word in ("Log in", "Live", "WebSocket", "Leave", "Try now", "Stage", "New here"):
        assert word not in shown
    assert page.locator("#board tr:visible").count() == len(fake.rows)
    assert page.evaluate("[...document.querySelectorAll('bdi')].every((name) => name.scrollWidth <= name.clientWidth)")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    apart = """() => [...document.querySelectorAll('#board tr:not(.vacant)')].map(({ cells: [rank, player] }) => {
      const middle = (element) => {
        const { top, bottom } = element.getBoundingClientRect();
        return (top + bottom) / 2;
      };
      const range = document.createRange();
      range.selectNodeContents(rank.firstElementChild);
      return Math.abs(middle(range) - middle(player.querySelector('bdi')));
    })"""
    for width in (600, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert max(page.evaluate(apart)) < 2, width  # pixels: the rank stands on the line of its name
    page.set_viewport_size({"width": 600, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.pdf()[:5] == b"%PDF-"


@in_browser
def test_on_a_phone_log_in_is_one_tap_away(fake: FakeBoard, visitor: BrowserContext) -> None:
    """A link in sight leads past the board to the form, ready to type, and later to one's own buttons."""
    page = visitor.new_page()
    page.set_viewport_size({"width": 390, "height": 844})
    fake.open(page)
    link = page.get_by_role("link", name="Log in")
    expect(link).to_be_in_viewport()
    link.click()
    expect(page.get_by_label("User name")).to_be_focused()
    expect(page.get_by_role("button", name="Log in")).to_be_in_viewport(ratio=1)
    enter(page)
    page.evaluate("scrollTo(0, 0)")
    page.get_by_role("link", name="You").click()
    expect(page.locator("[data-action]").first).to_be_in_viewport(ratio=1)


# ---- one's password -----------------------------------------------------------------------------------------------


@in_browser
def test_a_password_can_be_changed(fake: FakeBoard, visitor: BrowserContext) -> None:
    """Both passwords go to the server; what it finds wrong stands beside its field, success is said, and nothing stays
    in the form."""
    page = fake.open(visitor.new_page())
    enter(page)
    path = "/users/me/password"
    page.get_by_text("Change password").first.click()
    form = page.locator("#change")
    form.get_by_role("button", name="Change password").click()
    expect(page.get_by_label("Current password")).to_be_focused()
    assert path not in [asked for asked, _ in fake.asked]

    page.get_by_label("Current password").fill("not my password")
    page.get_by_label("New password").fill("another long password")
    wrong = {"errors": [{"field": "currentPassword", "message": "is not your password"}]}
    fake.api[path] = (400, refuse("INVALID_REQUEST", "currentPassword is not your password", **wrong))
    page.keyboard.press("Enter")
    expect(page.get_by_label("Current password")).to_have_accessible_description("is not your password")
    expect(page.get_by_label("Current password")).to_be_focused()

    page.get_by_label("Current password").fill("a long password")
    fake.api[path] = (204, None)
    page.keyboard.press("Enter")
    expect(page.locator("#said")).to_have_text("Your password has been changed.")
    expect(form).to_be_hidden()
    assert (path, {"currentPassword": "a long password", "newPassword": "another long password"}) in fake.asked
    assert form.evaluate("(form) => [...new FormData(form).values()].join('')") == ""


# ---- small things -------------------------------------------------------------------------------------------------


@in_browser
def test_an_old_refusal_goes_with_the_next_try(fake: FakeBoard, visitor: BrowserContext) -> None:
    """After a refused log-in a form that lacks a field says only that."""
    page = fake.open(visitor.new_page())
    fake.api["/auth/login"] = (401, refuse("UNAUTHORIZED", "No."))
    page.get_by_label("User name").fill("Grace")
    page.get_by_label("Password", exact=True).fill("not my password")
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#form-error")).to_have_text("User name or password is wrong.")
    page.get_by_label("User name").fill("")
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#username-error")).not_to_have_text("")
    expect(page.locator("#form-error")).to_have_text("")


@in_browser
def test_without_javascript_no_state_is_shown(browser: Browser) -> None:
    """The board that the server sent, and no dot of a state that nobody knows."""
    context = browser.new_context(java_script_enabled=False)
    FakeBoard(context, ROWS)
    page = context.new_page()
    page.goto(ORIGIN)
    expect(page.locator("#board")).to_contain_text("Ada")
    expect(page.locator("#state")).to_be_hidden()
    context.close()


@in_browser
def test_a_refused_site_waits_for_nothing(visitor: BrowserContext) -> None:
    """Where the board may not be shown there is no skeleton of one that will never come, on the page and in the
    element."""
    fake = FakeBoard(visitor, ROWS)
    fake.is_unreadable = True
    visitor.add_init_script("WebSocket.prototype.send = function () { this.onclose({ code: 4403 }); };")
    for path, line, rows in (("/", "#state", "#board"), ("/embed", "live-scoreboard p", "live-scoreboard ol")):
        page = visitor.new_page()
        page.goto(ORIGIN + path)
        expect(page.locator(line)).to_contain_text("Not live: this site may not show the board")
        expect(page.locator(rows)).to_be_hidden()


@in_browser
def test_a_note_keeps_off_what_is_below(fake: FakeBoard, visitor: BrowserContext) -> None:
    """A note of two lines does not touch the line under it, and the ranks of the element stand in circles."""
    page = fake.open(visitor.new_page())
    enter(page)
    page.locator("#note").evaluate(
        "(note) => (note.textContent = 'The server does not answer. Please try again. '.repeat(2))"
    )
    gap = page.evaluate(
        """() => {
          const range = document.createRange();
          range.selectNodeContents(document.querySelector('#note'));
          return document.querySelector('details').getBoundingClientRect().top - range.getBoundingClientRect().bottom;
        }"""
    )
    assert gap >= 8
    page = fake.open(visitor.new_page(), "/embed")
    assert page.locator("live-scoreboard li b").first.evaluate("(rank) => getComputedStyle(rank).borderRadius") == "50%"


# ---- what other programs see --------------------------------------------------------------------------------------


@in_browser
def test_the_page_can_be_installed_and_shown_elsewhere(visitor: BrowserContext, live_server: Any) -> None:
    """Manifest, icons and the picture for other sites are there, of the sizes that are named, and the page's policy
    lets them in."""
    page = open_page(visitor, live_server.url)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    devtools = visitor.new_cdp_session(page)
    found = devtools.send("Page.getAppManifest")
    assert found["errors"] == []
    manifest = json.loads(found["data"])
    pictures = {f"/static/{icon['src']}": icon["sizes"] for icon in manifest["icons"]} | {
        "/static/preview.png": "1200x630"
    }
    sizes = page.evaluate(
        """async (paths) => Object.fromEntries(await Promise.all(paths.map(async (src) => {
          const image = Object.assign(new Image(), { src });
          await image.decode();
          return [src, `${image.naturalWidth}x${image.naturalHeight}`];
        })))""",
        list(pictures),
    )
    assert {path: size for path, size in sizes.items() if not path.endswith("svg")} == {
        path: size for path, size in pictures.items() if not path.endswith("svg")
    }
    assert page.locator("meta[property='og:title']").get_attribute("content") == page.title()
    assert complaints == []


def test_others_are_given_the_public_address() -> None:
    """Who shows a picture of the page needs its whole address: with a public URL that is what it is given, without one
    nothing."""
    jinja = jinja2.Environment(loader=jinja2.FileSystemLoader(WEB / "templates"), autoescape=True)
    page = jinja.get_template("index.html").render(**render_context([], [], public_url="https://board.example"))
    assert '<meta property="og:image" content="https://board.example/static/preview.png">' in page
    page = jinja.get_template("index.html").render(**render_context([], []))
    assert "og:image" not in page
    assert "summary_large_image" not in page
    assert '<meta property="og:title"' in page
