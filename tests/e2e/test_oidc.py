"""Log-in by an outside issuer in a real browser: the board on https, the provider on another site, both in between
nothing but redirects."""

import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import trio
from playwright.sync_api import Browser, BrowserContext, Page, expect

from scoreboard.domain.paths import EXCHANGE_PATH, oidc_callback_path
from tests.background_loop import in_background
from tests.certificates import make_certificate
from tests.e2e.browsing import FREE, PAGE_TIMEOUT_MS, PLAIN_HOST, act, collect_errors, in_browser
from tests.e2e.server_processes import ServerProcess
from tests.oidc_provider import OidcProvider, oidc_provider
from tests.outside_keys import key_set, rsa_key


@dataclass
class Board:
    """A node behind TLS, and the provider by whom its users log in."""

    url: str
    node: ServerProcess
    provider: OidcProvider


@dataclass
class TlsProxy:
    """Ends TLS in front of a node, as a load balancer does. `port` is where it listens, `target` the node's port."""

    port: int
    target: int = 0

    async def serve(self, client: trio.SSLStream[trio.SocketStream]) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", self.target) as node, trio.open_nursery() as nursery:
            nursery.start_soon(_copy, client, node, nursery.cancel_scope)
            nursery.start_soon(_copy, node, client, nursery.cancel_scope)


async def _copy(source: trio.abc.Stream, target: trio.abc.Stream, both: trio.CancelScope) -> None:
    try:
        while data := await source.receive_some(65_536):
            await target.send_all(bytes(data))
    except (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError):
        pass
    both.cancel()


@asynccontextmanager
async def provider_and_proxy(folder: Path) -> AsyncIterator[tuple[OidcProvider, TlsProxy]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (folder / "proxy").mkdir()
    context.load_cert_chain(make_certificate(folder / "proxy", (PLAIN_HOST,)))
    proxy = TlsProxy(0)
    async with oidc_provider(folder) as provider, trio.open_nursery() as nursery:
        serve = partial(trio.serve_ssl_over_tcp, proxy.serve, 0, context, host="127.0.0.1", https_compatible=True)
        (listener,) = await nursery.start(serve)
        proxy.port = listener.transport_listener.socket.getsockname()[1]
        yield provider, proxy
        nursery.cancel_scope.cancel()


@pytest.fixture
def board(start_node: Callable[..., ServerProcess], tmp_path: Path) -> Iterator[Board]:
    game = tmp_path / "game.json"
    game.write_bytes(key_set(rsa_key("game")))
    with in_background(lambda: provider_and_proxy(tmp_path)) as ((provider, proxy), _):
        url = f"https://{PLAIN_HOST}:{proxy.port}"
        provider.redirect_uri = url + oidc_callback_path("school")
        node = start_node(
            server__public_url=url,
            outgoing__private_hosts="localhost",
            outgoing__ca_file=str(provider.server.ca_file),
            identity__school__issuer=provider.issuer,
            identity__school__title="School",
            identity__school__client_id="scoreboard",
            identity__school__client_secret=provider.client_secret,
            identity__game__issuer="https://game.example",
            identity__game__audience="board",
            identity__game__jwks_file=str(game),
        )
        proxy.target = node.port
        yield Board(url, node, provider)


@pytest.fixture
def secure_visitor(browser: Browser) -> Iterator[BrowserContext]:
    """A visitor whose browser takes the tests' certificates."""
    context = browser.new_context(ignore_https_errors=True)
    context.set_default_timeout(PAGE_TIMEOUT_MS)
    yield context
    context.close()


def log_in(page: Page) -> None:
    page.get_by_role("link", name="Log in with School").click()
    expect(page.locator("#name")).to_have_text("Ada", timeout=PAGE_TIMEOUT_MS)


@in_browser
def test_a_person_logs_in_by_the_button(secure_visitor: BrowserContext, board: Board) -> None:
    """One click, and the page shows the user, who can act. A reload and another tab keep the session; a log-out ends
    it. No address keeps a code, no cookie an attempt, and no console complains."""
    page = secure_visitor.new_page()
    errors = collect_errors(page)
    page.goto(board.url)
    log_in(page)
    assert urlsplit(page.url)[2:] == ("/", "", "")
    assert act(page) > 0
    page.reload()
    expect(page.locator("#name")).to_have_text("Ada", timeout=PAGE_TIMEOUT_MS)
    names = {cookie["name"] for cookie in secure_visitor.cookies()}
    assert names == {"__Secure-scoreboard_refresh", "__Secure-scoreboard_device"}
    other = secure_visitor.new_page()
    other.goto(board.url)
    expect(other.locator("#name")).to_have_text("Ada", timeout=PAGE_TIMEOUT_MS)
    page.get_by_role("button", name="Log out").click()
    expect(page.locator("#enter")).to_be_visible()
    expect(other.locator("#enter")).to_be_visible()
    log_in(page)
    expect(page.locator("#score")).not_to_have_text("0", timeout=PAGE_TIMEOUT_MS)
    assert errors == []


@in_browser
def test_the_keyboard_reaches_the_button(secure_visitor: BrowserContext, board: Board) -> None:
    page = secure_visitor.new_page()
    page.goto(board.url)
    page.get_by_role("link", name="Log in with School").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#name")).to_have_text("Ada", timeout=PAGE_TIMEOUT_MS)
    expect(page.locator(FREE)).to_be_visible()


@in_browser
@pytest.mark.parametrize(
    ("lie", "words"),
    [("", "was cancelled"), ("wrong_nonce", "could not be verified"), ("hang_up", "cannot be reached")],
)
def test_a_failed_log_in_says_why(secure_visitor: BrowserContext, board: Board, lie: str, words: str) -> None:
    """A page with one sentence and a way back to the board, where nobody is logged in."""
    board.provider.lies, board.provider.denies = {lie}, not lie
    page = secure_visitor.new_page()
    page.goto(board.url)
    page.get_by_role("link", name="Log in with School").click()
    expect(page.get_by_text(words)).to_be_visible(timeout=PAGE_TIMEOUT_MS)
    assert "555" not in page.content()  # the provider's own words are nobody's to show here
    page.get_by_role("link", name="To the board").click()
    expect(page.locator("#enter")).to_be_visible()
    assert not secure_visitor.cookies()


@in_browser
def test_a_link_to_the_callback_logs_nobody_in(secure_visitor: BrowserContext, board: Board) -> None:
    """Log-in CSRF in a real browser: another site's page sends it to the callback, with an answer that was made for
    somebody else."""
    page = secure_visitor.new_page()
    page.goto(f"{board.provider.issuer}/.well-known/openid-configuration")  # a page of another site
    page.evaluate(
        "url => { location.href = url; }", f"{board.provider.redirect_uri}?code=c&state=s&iss={board.provider.issuer}"
    )
    expect(page.get_by_text("has expired")).to_be_visible(timeout=PAGE_TIMEOUT_MS)
    assert not secure_visitor.cookies()


@in_browser
def test_the_javascript_client_exchanges_a_token(secure_visitor: BrowserContext, board: Board) -> None:
    """In a page, where the refresh token becomes a cookie: the session is there after a reload."""
    claims = {"iss": "https://game.example", "aud": "board", "sub": "p2", "exp": 4_000_000_000}
    page = secure_visitor.new_page()
    page.goto(board.url)
    points = page.evaluate(
        """async (token) => {
          const { exchange } = await import('/scoreboard.js');
          const session = await exchange({ token });
          return (await session.submitAction('task_finish', { difficulty: 'hard', timeSpent: 120 })).pointsAwarded;
        }""",
        rsa_key("game").sign(claims),
    )
    assert points > 0
    page.reload()
    expect(page.locator("#score")).to_have_text(str(points), timeout=PAGE_TIMEOUT_MS)


def test_a_node_exchanges_a_token_and_logs_no_secret(board: Board) -> None:
    """The whole node, by its settings: keys from a file; and its log has neither tokens nor the client's secret."""
    claims = {"iss": "https://game.example", "aud": "board", "sub": "p1", "exp": 4_000_000_000}
    token, forged = (rsa_key(key).sign(claims, kid="game") for key in ("game", "another"))
    answer = httpx.post(f"{board.node.url}{EXCHANGE_PATH}", json={"token": token})
    assert answer.status_code == httpx.codes.OK, answer.text
    assert httpx.post(f"{board.node.url}{EXCHANGE_PATH}", json={"token": forged}).status_code == 401
    log = board.node.log.read_text()
    assert token not in log
    assert board.provider.client_secret not in log
    assert 'outcome="signature"' in httpx.get(f"{board.node.url}/metrics").text
