"""<live-scoreboard> on somebody else's page: another origin, a strict content security policy, and whatever room there
is."""

import base64
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
from playwright.sync_api import BrowserContext, Page, expect

from scoreboard.domain.pictures import path
from tests.e2e.browsing import PAGE_TIMEOUT_MS, Player, collect_errors, in_browser, log_in
from tests.e2e.server_processes import ServerProcess

StartNode = Callable[..., ServerProcess]
DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)  # a PNG of one pixel


@contextmanager
def foreign_site() -> Iterator[Any]:
    """A web site of somebody else; set its `page` and `policy`. Its origin is `origin`."""

    class ForeignSite(ThreadingHTTPServer):
        page = policy = origin = ""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = site.page.encode() if self.path == "/" else b""
            self.send_response(200)
            self.send_header("content-type", "text/html; charset=utf-8")
            self.send_header("content-length", str(len(page)))
            self.send_header("content-security-policy", site.policy)
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            pass

    site = ForeignSite(("127.0.0.1", 0), Handler)
    site.origin = f"http://127.0.0.1:{site.server_port}"
    thread = threading.Thread(target=site.serve_forever, daemon=True)
    thread.start()
    yield site
    site.shutdown()
    thread.join()
    site.server_close()


def embed(site: Any, node: ServerProcess, body: str) -> None:
    """Its page with the two lines that the documentation gives, under a policy that allows nothing else."""
    site.policy = (
        f"default-src 'none'; script-src {node.url}; connect-src {node.url} ws://127.0.0.1:{node.port}; "
        "frame-ancestors 'none'"
    )
    site.page = (
        f"<!doctype html><title>Somebody's</title><script type=module src={node.url}/scoreboard.js></script>{body}"
    )


def visit(visitor: BrowserContext, site: Any) -> Page:
    page = visitor.new_page()
    page.goto(site.origin)
    return page


@in_browser
def test_one_line_shows_the_board_live(visitor: BrowserContext, start_node: StartNode) -> None:
    """A page of an allowed origin shows the board and what changes, as a list that a screen reader reads; its console
    has no complaint."""
    with foreign_site() as site:
        node = start_node(server__allowed_origins=site.origin, limits__user_per_minute="0")
        ada, grace = Player(node.url, "Ada"), Player(node.url, "Grace")
        first = ada.act()
        grace.act()
        embed(site, node, "<live-scoreboard limit=5></live-scoreboard>")
        page = visitor.new_page()
        complaints = collect_errors(page)
        sockets: list[Any] = []
        page.on("websocket", lambda socket: sockets.append(socket))
        page.goto(site.origin)
        board = page.get_by_role("list", name="Top 5")
        # places that nobody has are not read out
        expect(board.get_by_role("listitem")).to_have_count(2, timeout=PAGE_TIMEOUT_MS)
        expect(board.locator("li")).to_have_count(5)
        expect(board.locator("li").first).to_contain_text("Ada")
        expect(board.locator("li").first).to_contain_text(f"{first:,}")
        total = grace.act()
        expect(board.locator("li").first).to_contain_text("Grace", timeout=PAGE_TIMEOUT_MS)
        expect(board.locator("li").first).to_contain_text(f"{total:,}", timeout=PAGE_TIMEOUT_MS)
        expect(page.locator("live-scoreboard p")).to_contain_text("Live")
        page.evaluate("document.querySelector('live-scoreboard').setAttribute('limit', '1')")
        expect(page.locator("live-scoreboard li")).to_have_count(1)
        page.evaluate("document.body.append(Object.assign(document.createElement('live-scoreboard'), { id: 'later' }))")
        expect(page.locator("#later li").first).to_contain_text("Grace", timeout=PAGE_TIMEOUT_MS)
        page.evaluate("document.querySelectorAll('live-scoreboard').forEach((each) => each.setAttribute('limit', '2'))")
        expect(page.locator("#later li")).to_have_count(2)
        assert complaints == []
        assert len(sockets) == 1  # however many elements
        with sockets[0].expect_event("close"):
            page.evaluate("document.body.replaceChildren()")


@in_browser
def test_a_page_that_is_not_allowed_is_told(visitor: BrowserContext, start_node: StartNode) -> None:
    """A page of another origin sees no board; each element says why, the console once what to set, and log-in is
    refused."""
    with foreign_site() as site:
        node = start_node(server__allowed_origins="http://allowed.test", limits__user_per_minute="0")
        Player(node.url, "Ada").act()
        embed(site, node, "<live-scoreboard></live-scoreboard>")
        page = visitor.new_page()
        complaints = collect_errors(page)
        page.goto(site.origin)
        page.evaluate("document.body.append(document.createElement('live-scoreboard'))")
        for element in (page.locator("live-scoreboard").first, page.locator("live-scoreboard").last):
            expect(element.locator("p")).to_contain_text(
                "Not live: this site may not show the board", timeout=PAGE_TIMEOUT_MS
            )
            expect(element.locator("ol")).to_be_hidden()
            expect(element).not_to_contain_text("Ada")
        refused = page.evaluate(
            """async (url) => {
              const { login } = await import(url + '/scoreboard.js');
              return login({ url, username: 'Ada', password: 'a long password' })
                .catch(({ code, message }) => [code, message]);
            }""",
            node.url,
        )
        assert refused == ["FORBIDDEN", "Pages of this origin are not allowed here."]
        explained = [words for words in complaints if "server.allowed_origins" in words]
        assert len(explained) == 1
        assert site.origin in explained[0]


@in_browser
def test_a_page_of_an_allowed_origin_logs_in(visitor: BrowserContext, start_node: StartNode) -> None:
    """The client's log-in works across origins: the refresh cookie is kept, an action counts, and a reload finds the
    session again."""
    with foreign_site() as site:
        node = start_node(server__allowed_origins=site.origin, limits__user_per_minute="0")
        Player(node.url, "Ada")
        embed(site, node, "")
        page = visit(visitor, site)
        before = page.evaluate(
            """async (url) => {
              const { login } = await import(url + '/scoreboard.js');
              const session = await login({ url, username: 'Ada', password: 'a long password' });
              return (await session.submitAction('task_finish')).newScore;
            }""",
            node.url,
        )
        page.reload()
        after = page.evaluate(
            """async (url) => {
              const { logout, resume, submitAction } = await import(url + '/scoreboard.js');
              const session = await resume({ url });
              const { previousScore } = await submitAction({ session, actionType: 'task_finish' });
              await logout(session);
              return [previousScore, await resume({ url })];
            }""",
            node.url,
        )
        assert after == [before, None]


@in_browser
def test_a_wrong_clock_refuses_no_action_there(visitor: BrowserContext, start_node: StartNode) -> None:
    """Actions are signed with the server's time on a page of another origin, too, which sees of an answer only what
    CORS lets it see."""
    with foreign_site() as site:
        node = start_node(server__allowed_origins=site.origin, limits__user_per_minute="0")
        Player(node.url, "Ada")
        embed(site, node, "")
        visitor.add_init_script("const { now } = Date; Date.now = () => now() + 900_000;")  # fifteen minutes fast
        points = visit(visitor, site).evaluate(
            """async (url) => {
              const { login } = await import(url + '/scoreboard.js');
              const session = await login({ url, username: 'Ada', password: 'a long password' });
              return (await session.submitAction('task_finish')).pointsAwarded;
            }""",
            node.url,
        )
        assert points > 0


@in_browser
def test_it_takes_the_looks_of_its_page(visitor: BrowserContext, start_node: StartNode) -> None:
    """Font, radius and colour scheme are the page's, colours can be set, and from 240 pixels on nothing is wider than
    its place."""
    with foreign_site() as site:
        node = start_node(server__allowed_origins=site.origin, limits__user_per_minute="0")
        Player(node.url, "A very long name that ends somewhere").act()
        embed(site, node, "<live-scoreboard></live-scoreboard><live-scoreboard id=own theme=dark></live-scoreboard>")
        page = visit(visitor, site)
        expect(page.locator("live-scoreboard li").first).to_contain_text("A very long", timeout=PAGE_TIMEOUT_MS)
        looks = page.evaluate(
            """() => {
              const [host, own] = document.querySelectorAll('live-scoreboard');
              const look = (host, part) => getComputedStyle(host.shadowRoot.querySelector(part));
              document.body.style.fontFamily = 'monospace';
              host.style.borderRadius = '3px';
              host.style.setProperty('--scoreboard-accent', 'rgb(1, 2, 3)');
              const light = look(host, 'section').backgroundColor;
              const wide = [240, 320, 480, 900].map((width) => {
                host.style.width = width + 'px';
                const inside = host.shadowRoot.querySelectorAll('section, li, data, p');
                const right = (element) => element.getBoundingClientRect().right;
                return Math.max(...[...inside].map(right)) <= right(host);
              });
              document.documentElement.style.colorScheme = 'dark';
              return {
                font: look(host, 'bdi').fontFamily, radius: look(host, 'section').borderRadius,
                accent: look(host, 'li b').backgroundColor,
                dark: look(host, 'section').backgroundColor, own: look(own, 'section').backgroundColor, light, wide,
              };
            }"""
        )
        assert (looks["font"], looks["radius"], looks["accent"]) == ("monospace", "3px", "rgb(1, 2, 3)")
        assert looks["light"] != looks["dark"] == looks["own"]
        assert looks["wide"] == [True] * 4


@in_browser
def test_a_page_of_others_holds_no_poll_by_a_picture(visitor: BrowserContext, start_node: StartNode) -> None:
    """Pictures send no Origin: the browser's Sec-Fetch-Site has a poll and a stream refused at once. Our files are
    still for anybody."""
    with foreign_site() as site:
        node = start_node()
        watched = ("/api/v1/scores/poll?since=1-1", "/api/v1/scores/stream")
        site.policy = f"default-src 'none'; img-src {node.url}"
        site.page = "".join(f"<img src='{node.url}{path}'>" for path in (*watched, "/static/favicon.svg"))
        before = refused(node)
        page = visitor.new_page()
        failed: set[str] = set()
        page.on("requestfailed", lambda request: failed.add(request.url.removeprefix(node.url)))
        page.goto(site.origin)
        assert failed == set(watched)  # the page isn't told what came either
        assert refused(node) == before + len(watched)
        assert page.evaluate("[...document.images].map((image) => image.naturalWidth > 0)") == [False, False, True]


def refused(node: ServerProcess, *, hot: bool = True) -> int:
    """How many requests of hot routes, or of all others, the node has answered with 4xx."""
    lines = httpx.get(f"{node.url}/metrics").text.splitlines()
    counted = [line for line in lines if line.startswith("scoreboard_http_requests_total") and 'status="4xx"' in line]
    named = [line for line in counted if ("asgi" not in line) == hot]
    return round(sum(float(line.rpartition(" ")[2]) for line in named))


@in_browser
def test_pictures_come_from_the_scoreboards_server_alone(visitor: BrowserContext, start_node: StartNode) -> None:
    """On its own page, as it is sent and as it changes, and on somebody's page: no request goes to where a user says
    that it is."""
    with foreign_site() as site:
        node = start_node(server__allowed_origins=site.origin, limits__user_per_minute="0")
        ada = Player(node.url, "Ada")
        ada.act()
        first, second = "https://pictures.test/1.png", "https://pictures.test/2.png?a=b"
        ada.change(avatarUrl=first)
        embed(site, node, "<live-scoreboard></live-scoreboard>")
        site.policy += f"; img-src {node.url}"
        asked: list[str] = []
        visitor.route("https://pictures.test/**", lambda route: route.abort())
        visitor.route("**/avatars/**", lambda route: route.fulfill(status=200, content_type="image/png", body=DOT))
        visitor.on("request", lambda request: asked.append(request.url))
        pages = [visit(visitor, site), visitor.new_page()]
        pages[1].goto(node.url)
        for url in (first, second):
            ada.change(avatarUrl=url)
            expected = node.url + path(ada.user, url)
            for page in pages:
                face = page.locator("li img, tbody img")
                expect(face).to_have_attribute(
                    "src", re.compile(re.escape(path(ada.user, url)) + "$"), timeout=PAGE_TIMEOUT_MS
                )
                expect(face).to_have_js_property("naturalWidth", 1, timeout=PAGE_TIMEOUT_MS)
            assert expected in asked
        assert [url for url in asked if "pictures.test" in url] == []


@in_browser
def test_without_pictures_the_page_asks_for_none(visitor: BrowserContext, start_node: StartNode) -> None:
    """accounts.avatars = false: initials, and no request that can only fail."""
    node = start_node(accounts__avatars="false", limits__user_per_minute="0")
    ada = Player(node.url, "Ada")
    ada.act()
    ada.change(avatarUrl="https://pictures.test/1.png")
    asked: list[str] = []
    visitor.on("request", lambda request: asked.append(request.url))
    page = visitor.new_page()
    page.goto(node.url)
    expect(page.locator("#state")).to_contain_text("Live", timeout=PAGE_TIMEOUT_MS)
    total = ada.act()
    expect(page.locator("#board tr").first).to_contain_text(f"{total:,}", timeout=PAGE_TIMEOUT_MS)
    expect(page.locator("img")).to_have_count(0)
    assert [url for url in asked if "avatars" in url or "pictures.test" in url] == []


@in_browser
def test_a_picture_that_cannot_be_had_is_asked_for_once(visitor: BrowserContext, start_node: StartNode) -> None:
    """By a user who is logged in and sees twenty changes of the board, and whose row comes anew as often."""
    node = start_node(limits__user_per_minute="0", limits__cooldowns="false")
    ada, other = Player(node.url, "Ada"), Player(node.url, "Other")
    ada.act()
    ada.change(avatarUrl="https://pictures.test/1.png")
    page = visitor.new_page()
    page.emulate_media(reduced_motion="reduce")  # a score stands at once
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(node.url)
    log_in(page, "Ada", "a long password")
    for _ in range(20):
        total = other.act()
        expect(page.locator("#board tr").filter(has_text="Other")).to_contain_text(
            f"{total:,}", timeout=PAGE_TIMEOUT_MS
        )
    expect(page.locator("#mine")).to_contain_text("Ada")
    assert len([url for url in asked if "/avatars/" in url]) in {1, 2}
    paint = """async ([userId, avatarUrl]) => {
        const { paintFace } = await import('/static/drawing.js');
        for (let drawn = 0; drawn < 20; drawn++) {
            const face = document.createElement('i');
            paintFace(face, { userId, username: 'Ada', avatarUrl }, '');
            const image = face.querySelector('img');
            await new Promise((done) => image.addEventListener('error', done));
        }
    }"""
    page.evaluate(paint, [ada.user, "https://pictures.test/1.png"])
    assert 1 <= refused(node, hot=False) <= 2
