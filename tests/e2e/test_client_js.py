"""The browser client, scoreboard.js: deltas, gaps, lost connections, networks that let only some transports through,
safe submission.

In Debian's Chromium against the real server; where a server has to misbehave, the test plays it.
"""

import json
import random
import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from playwright.sync_api import BrowserContext, Page, Route, WebSocket, WebSocketRoute, expect

from scoreboard.domain import protocol
from scoreboard.domain.boards import Entry, Snapshot
from scoreboard.domain.deltas import compare
from tests.e2e.browsing import (
    FREE,
    PAGE_TIMEOUT_MS,
    Player,
    act,
    expect_state,
    in_browser,
    log_in,
    open_page,
    player,
    proxy,
    row,
    score,
)
from tests.e2e.server_processes import ServerProcess

StartNode = Callable[..., ServerProcess]

HIDE = """(hidden) => {
  Object.defineProperty(document, 'hidden', { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event('visibilitychange'));
}"""


class SocketLog:
    """What was said on this tab's WebSockets, one after the other."""

    def __init__(self, page: Page) -> None:
        self.sockets: list[tuple[list[Any], list[Any]]] = []  # sent, received
        page.on("websocket", self._opened)

    def _opened(self, socket: WebSocket) -> None:
        sent: list[Any] = []
        received: list[Any] = []
        self.sockets.append((sent, received))
        socket.on("framesent", lambda frame: sent.append(json.loads(frame)))
        socket.on("framereceived", lambda frame: received.append(json.loads(frame)))


def subscriptions(messages: list[Any]) -> list[Any]:
    return [message for message in messages if message["action"] == "subscribe"]


def newest(received: list[Any]) -> str:
    """The position after all that."""
    return str([message["data"]["position"] for message in received if message["event"].startswith("leaderboard:")][-1])


# ---- what it decides ----------------------------------------------------------------------------------------------


def random_board(rows: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """Another top ten: some score, some rise, some leave, some come, some change name or picture."""
    people = {row.userId: row for row in rows}
    for _ in range(random.randint(1, 6)):
        user = f"user-{random.randint(1, 16)}"
        known = people.get(user)
        name, picture = (known.username, known.avatarUrl) if known else (user, None)
        if random.random() < 0.2:
            name, picture = f"{user} {random.random():.3f}", random.choice((None, "https://example.org/a.png"))
        people[user] = Entry(0, user, name, random.randint(1, 500), picture)
    best = sorted(people.values(), key=lambda row: (-row.score, row.userId))[: random.randint(0, 10)]
    return tuple(msgspec.structs.replace(row, rank=rank) for rank, row in enumerate(best, 1))


@in_browser
def test_deltas_make_the_same_board_as_the_server(visitor: BrowserContext, live_server: Any) -> None:
    """Whatever changed between two ticks: the server's delta applied to the rows before gives exactly the rows
    after."""
    random.seed(20_261)
    boards: list[tuple[Entry, ...]] = [()]
    deltas = []
    for step in range(1, 300):
        boards.append(random_board(boards[-1]))
        snapshot = Snapshot("leaderboard", 1, step, step, 0, boards[-1])
        deltas.append(json.loads(protocol.delta(f"1-{step - 1}", compare(boards[-2], boards[-1]), snapshot))["data"])
    page = open_page(visitor, live_server.url)
    made = page.evaluate(
        """async (deltas) => {
          const { applyDelta } = await import('/scoreboard.js');
          let rows = [];
          return deltas.map((delta) => (rows = applyDelta(rows, delta)));
        }""",
        deltas,
    )
    assert made == [msgspec.to_builtins(list(board)) for board in boards[1:]]


@in_browser
def test_close_codes_say_what_comes_next(visitor: BrowserContext, live_server: Any) -> None:
    """A restart brings it back within a second, overload much later, a bad token with another one; a foreign origin
    ends it."""
    page = open_page(visitor, live_server.url)
    after = page.evaluate(
        """async () => {
          const { afterClose } = await import('/scoreboard.js');
          const delays = (code, attempt) => Array.from({ length: 200 }, () => afterClose(code, attempt).delay);
          const worst = (code, attempt) => Math.max(...delays(code, attempt));
          return {
            foreign: afterClose(4403, 0), expired: afterClose(4401, 0, { anonymous: false }),
            stranger: afterClose(4401, 0), refused: afterClose(4400, 0),
            dead: afterClose(1006, 0, { proven: false }), busy: afterClose(1013, 0, { proven: false }),
            restart: worst(1012, 0), failed: [worst(1006, 0), worst(1006, 3), worst(1006, 99)],
            overloaded: worst(1013, 0),
          };
        }"""
    )
    assert after["foreign"]["stop"]
    assert after["stranger"]["stop"]
    assert (after["expired"]["stop"], after["expired"]["renew"]) == (False, True)
    assert after["refused"]["down"]
    assert after["dead"]["down"]
    assert not after["busy"]["down"]
    assert after["restart"] <= 1000
    first, fourth, last = after["failed"]
    assert first < 1000 < fourth < 5000 < last <= 30_200
    assert after["overloaded"] > 1000


@in_browser
def test_a_token_that_is_refused_is_let_go(visitor: BrowserContext, live_server: Any) -> None:
    """One that is a mere string can't be renewed: the board is watched without it, not asked for with it for ever."""
    page = open_page(visitor, live_server.url)
    state = page.evaluate(
        """() => import('/scoreboard.js').then(({ connect }) => new Promise((done) => {
          const live = connect({ token: 'nonsense' });
          const codes = [];
          live.addEventListener('state', ({ detail }) => codes.push(detail.code));
          live.addEventListener('board', () => (live.close(), done({ codes, name: live.state.name })));
        }))"""
    )
    assert 4401 in state["codes"]


@in_browser
def test_a_gap_is_asked_for(visitor: BrowserContext, live_server: Any) -> None:
    """A delta that does not fit changes nothing: the client subscribes again with the position that it has."""
    ada = {"userId": "a", "username": "Ada", "rank": 1, "score": 10}
    asked: list[Any] = []

    def serve(socket: WebSocketRoute) -> None:
        def on_message(message: str | bytes) -> None:
            asked.append(json.loads(message))
            if asked[-1]["action"] != "subscribe":
                return
            if len(asked) == 1:
                send("update", leaderboard=[ada], position="1-1", changedPositions=[])
                send(
                    "delta",
                    changed=[{**ada, "previousRank": 1, "score": 40}],
                    removed=[],
                    position="1-4",
                    previousPosition="1-3",
                )
            else:
                send(
                    "delta",
                    changed=[{**ada, "previousRank": 1, "score": 30}],
                    removed=[],
                    position="1-3",
                    previousPosition="1-1",
                )
                send(
                    "delta",
                    changed=[{**ada, "previousRank": 1, "score": 40}],
                    removed=[],
                    position="1-4",
                    previousPosition="1-3",
                )
                # nobody scored: the position stays
                named = {**ada, "previousRank": 1, "score": 40, "username": "Grace"}
                send("delta", changed=[named], removed=[], position="1-4", previousPosition="1-4")

        def send(event: str, **data: Any) -> None:
            socket.send(
                json.dumps({"event": f"leaderboard:{event}", "data": {**data, "timestamp": "2026-01-01T00:00:00.000Z"}})
            )

        socket.on_message(on_message)

    page = visitor.new_page()
    page.route_web_socket("**/api/v1/scores/live", serve)
    page.goto(live_server.url)
    expect(page.locator("#board tr").first.locator("td").last).to_have_text("40", timeout=PAGE_TIMEOUT_MS)
    expect(page.locator("#board tr").first.locator("bdi")).to_have_text("Grace")
    assert [message.get("since") for message in asked] == [None, "1-1"]
    assert {message["mode"] for message in asked} == {"delta"}


# ---- a connection's life ------------------------------------------------------------------------------------------


@in_browser
def test_a_tab_that_was_cut_off_catches_up(visitor: BrowserContext, start_node: StartNode) -> None:
    """Cut off it says so; back again it resumes from its position, is sent only what it missed, and shows what others
    show."""
    node = start_node(limits__user_per_minute="0")
    players = [Player(node.url, f"Player {number}") for number in range(4)]
    for each in players:
        each.act()
    with proxy(node.port) as network:
        away, here = visitor.new_page(), open_page(visitor, node.url)
        socket_log = SocketLog(away)
        away.goto(network.url)
        expect_state(away, "Live")
        shown = away.locator("#board").inner_text()
        network.swallow = {b"/api/v1/scores/stream", b"/api/v1/scores/poll"}  # they would bring the whole board
        network.cut()
        expect_state(away, "Reconnecting")
        total = [players[3].act() for _ in range(3)][-1]
        expect(here.locator("#board tr").first).to_contain_text(f"{total:,}", timeout=PAGE_TIMEOUT_MS)
        assert away.locator("#board").inner_text() == shown
        network.is_cut = False
        away.evaluate("dispatchEvent(new Event('online'))")  # what the browser says when the network is back
        expect_state(away, "Live")
        expect(away.locator("#board tr").first).to_contain_text(f"{total:,}", timeout=PAGE_TIMEOUT_MS)
        sent, received = socket_log.sockets[-1]
        assert [message["since"] for message in subscriptions(sent)] == [newest(socket_log.sockets[0][1])]
        assert "leaderboard:update" not in {message["event"] for message in received}
        for place in range(1, 5):
            name = here.locator(f"#board tr:nth-child({place}) bdi").inner_text()
            expect(away.locator(f"#board tr:nth-child({place}) bdi")).to_have_text(name)


@in_browser
def test_networks_without_websocket_or_streams(visitor: BrowserContext, live_server: Any) -> None:
    """WebSocket held back: the stream; that too: long poll, with one's own score; what worked is remembered, the best
    comes back."""
    with proxy(live_server.port) as network:
        network.swallow = {b"/api/v1/scores/live"}
        watching = open_page(visitor, network.url, "SSE")
        acting = open_page(visitor, live_server.url)
        username, password = player(acting, live_server, 7)
        log_in(acting, username, password)

        def seen() -> None:
            points = score(acting, username) + act(acting)
            expect(row(watching, username).locator("td").last).to_have_text(f"{points:,}", timeout=PAGE_TIMEOUT_MS)

        seen()
        sockets: list[WebSocket] = []
        watching.on("websocket", lambda socket: sockets.append(socket))
        watching.reload()
        expect_state(watching, "SSE")
        assert sockets == []  # it knows by now
        seen()
        network.swallow.add(b"/api/v1/scores/stream")
        network.drop()
        expect_state(watching, "Polling")
        seen()
        log_in(watching, username, password)
        seen()
        expect(watching.locator("#score")).to_have_text(f"{score(acting, username):,}", timeout=PAGE_TIMEOUT_MS)
        network.swallow = set()
        watching.evaluate("dispatchEvent(new Event('online'))")
        expect_state(watching, "WebSocket")
        seen()


@in_browser
def test_out_of_sight_it_pauses(visitor: BrowserContext, live_server: Any) -> None:
    """A hidden tab lets its connection go; seen again it is live at once, from the position that it had."""
    page = visitor.new_page()
    socket_log = SocketLog(page)
    page.goto(live_server.url)
    expect_state(page, "Live")
    expect(page.locator("#board tr").first).to_be_visible()
    page.evaluate(HIDE, True)
    expect_state(page, "Paused")
    known = newest(socket_log.sockets[0][1])
    page.evaluate(HIDE, False)
    expect_state(page, "Live")
    assert [message["since"] for message in subscriptions(socket_log.sockets[-1][0])] == [known]
    assert len(socket_log.sockets) == 2


@in_browser
def test_a_client_moves_to_another_node(visitor: BrowserContext, start_node: StartNode) -> None:
    """When its node goes, the client resumes on another one under the same position: it is sent what it missed, not the
    whole board."""
    first, second = start_node(limits__user_per_minute="0"), start_node(limits__user_per_minute="0")
    players = [Player(second.url, f"Player {number}") for number in range(3)]
    for each in players:
        each.act()
    with proxy(first.port) as network:
        open_page(visitor, second.url)  # what somebody watches the node remembers for a while
        page = visitor.new_page()
        socket_log = SocketLog(page)
        page.goto(network.url)
        expect_state(page, "Live")
        expect(page.locator("#board tr[data-user]")).to_have_count(3, timeout=PAGE_TIMEOUT_MS)
        network.target = second.port
        with page.expect_websocket():
            first.stop()
        total = players[2].act()
        expect_state(page, "Live")
        expect(page.locator("#board tr").first).to_contain_text(f"{total:,}", timeout=PAGE_TIMEOUT_MS)
        sent, received = socket_log.sockets[-1]
        assert len(socket_log.sockets) > 1
        assert subscriptions(sent)[0]["since"] == newest(socket_log.sockets[0][1])
        assert "leaderboard:update" not in {message["event"] for message in received}


@in_browser
def test_who_asks_alike_shares_a_connection(visitor: BrowserContext, live_server: Any) -> None:
    """One WebSocket for all with the same server, mode and token; a late one is sent what is known; the last one ends
    it."""
    page = open_page(visitor, live_server.url)
    socket_log = SocketLog(page)
    shared = page.evaluate(
        """async () => {
          const { connect } = await import('/scoreboard.js');
          const next = (live, name) => new Promise((done) =>
            live.addEventListener(name, ({ detail }) => done(detail), { once: true }));
          const lives = [connect(), connect({ url: location.origin + '/anything', mode: 'delta' })];
          const boards = await Promise.all(lives.map((live) => next(live, 'board')));
          lives.push(connect());
          const [late, state] = await Promise.all([next(lives[2], 'board'), next(lives[2], 'state')]);
          lives[0].close();
          lives[0].redial(); // it has left: nothing happens
          Object.assign(window, { connect, lives, next });
          return { same: boards[0] === boards[1] && boards[1] === late && late === lives[1].board, name: state.name };
        }"""
    )
    assert shared == {"same": True, "name": "live"}
    assert len(socket_log.sockets) == 1
    assert [message["mode"] for message in subscriptions(socket_log.sockets[0][0])] == ["delta"]
    full = page.evaluate(
        """async () => {
          const own = window.connect({ mode: 'full' });
          const board = await window.next(own, 'board');
          own.close();
          return board.leaderboard.length;
        }"""
    )
    assert full == 10
    assert len(socket_log.sockets) == 2
    assert [message["mode"] for message in subscriptions(socket_log.sockets[1][0])] == ["full"]
    again = "const last = window.lives.splice(0).map((live) => live.close()).length; window.lives = [window.connect()];"
    page.evaluate("() => { " + again + " }")  # mounted anew at once: it stays
    page.evaluate("() => new Promise((done) => setTimeout(done, 50))")
    assert page.evaluate("window.lives[0].state.name") == "live"
    assert len(socket_log.sockets) == 2
    page.evaluate("() => window.lives[0].close()")
    page.evaluate("async () => { const live = window.connect(); await window.next(live, 'board'); live.close(); }")
    assert len(socket_log.sockets) == 3


@in_browser
def test_a_user_does_not_become_the_others(visitor: BrowserContext, live_server: Any) -> None:
    """Of two who share a connection one proves a user: it gets one of its own, and the other watches on as a
    stranger."""
    page = open_page(visitor, live_server.url)
    socket_log = SocketLog(page)
    name, password = player(page, live_server, 5)
    rank = page.evaluate(
        """async ([username, password]) => {
          const { connect, login } = await import('/scoreboard.js');
          const next = (live, name) => new Promise((done) =>
            live.addEventListener(name, ({ detail }) => done(detail), { once: true }));
          const [own, other] = [connect(), connect()];
          other.addEventListener('personal', () => (window.leaked = true));
          await next(other, 'board');
          const session = await login({ username, password });
          own.identify(await session.token());
          const { rank } = await next(own, 'personal');
          const states = [own.state.name, other.state.name, Boolean(window.leaked)];
          own.close();
          other.close();
          await session.logout();
          return [rank > 0, ...states];
        }""",
        [name, password],
    )
    assert rank == [True, "live", "live", False]
    assert ["auth" in {message["action"] for message in sent} for sent, _ in socket_log.sockets] == [False, True]


@in_browser
def test_a_refusal_for_the_number_says_why_and_until_when(visitor: BrowserContext, start_node: StartNode) -> None:
    """The second viewer of an address that may have one: the page says so and when it tries again, and is live once
    there is room."""
    node = start_node(live__connections_per_ip="1")
    here = open_page(visitor, node.url)
    other = visitor.new_page()
    other.goto(node.url)
    expect(other.locator("#state")).to_contain_text(
        re.compile(r"^Not live: too many viewers from your network\. Next try in \d+ s"), timeout=PAGE_TIMEOUT_MS
    )
    here.close()
    expect_state(other, "Live")


@in_browser
def test_a_refusal_for_the_users_number_is_told_apart(visitor: BrowserContext, start_node: StartNode) -> None:
    """The second board of an account that may have one open says that it is this account's number, not the
    network's."""
    node = start_node(live__connections_per_user="1")
    Player(node.url, "Ada")
    here = open_page(visitor, node.url)
    log_in(here, "Ada", "a long password")
    other = visitor.new_page()
    other.goto(node.url)
    expect(other.locator("#state")).to_contain_text(
        "too many boards of this account are open. Next try", timeout=PAGE_TIMEOUT_MS
    )


REFUSED = {
    "success": False,
    "code": "RATE_LIMITED",
    "layer": "ip",
    "detail": "Too many requests from this address. Next in 7 s.",
}


@in_browser
def test_a_refusal_before_the_upgrade_is_found_out(visitor: BrowserContext, live_server: Any) -> None:
    """A WebSocket that gets a 429 tells a script nothing: the next transport's refusal has reason, limit and time,
    which are kept."""
    page = open_page(visitor, live_server.url)
    page.route_web_socket("**/api/v1/scores/live", lambda socket: socket.close())
    refusal = {
        "status": 429,
        "content_type": "application/problem+json",
        "headers": {"retry-after": "7"},
        "body": json.dumps(REFUSED),
    }
    page.route("**/api/v1/scores/stream*", lambda route: route.fulfill(**refusal))
    state = page.evaluate(
        """async () => {
          const { connect } = await import('/scoreboard.js');
          const { stateWords } = await import('/static/words.js');
          const live = connect({ mode: 'full' });
          const state = await new Promise((done) => {
            live.addEventListener('state', ({ detail }) => detail.name === 'waiting' && done(detail));
          });
          live.close();
          const words = (...more) => stateWords(Object.assign({ ...state, retryAt: Date.now() + 6500 }, ...more));
          return {
            ...state, wait: state.retryAt - Date.now(),
            words: [words(), words({ name: 'connecting' }), words({ reason: 'too many connections', layer: '' }),
              words({ reason: 'Too many connections of this user', layer: 'user' }),
              words({ code: 1006, reason: '', layer: '' })],
          };
        }"""
    )
    assert (state["code"], state["reason"], state["layer"]) == (1013, "Too many requests from this address", "ip")
    assert 6_000 < state["wait"] < 12_000
    assert state["words"] == [
        "Not live: too many requests from your network. Next try in 7 s",
        "Not live: too many requests from your network. Trying again",
        "Not live: too many connections. Next try in 7 s",
        "Not live: too many boards of this account are open. Next try in 7 s",
        "Reconnecting in 7 s",
    ]


@in_browser
def test_a_token_that_never_comes_keeps_nobody_waiting(visitor: BrowserContext, live_server: Any) -> None:
    """A function that gives none, or throws, or hangs: the board is watched as a stranger; a token that comes late is
    used."""
    page = open_page(visitor, live_server.url)
    name, password = player(page, live_server, 6)
    page.clock.install()
    page.evaluate(
        """async ([username, password]) => {
          const { connect, login } = await import('/scoreboard.js');
          const session = await login({ username, password });
          const token = await session.token();
          document.title = '';
          const saw = (what) => (document.title += what + '.');
          const watch = (name, give) => {
            const live = connect({ token: give });
            live.addEventListener('board', () => saw(name + ' board'), { once: true });
            live.addEventListener('personal', () => saw(name + ' personal'));
          };
          watch('throws', () => { throw new Error('no token'); });
          watch('late', () => new Promise((done) => (window.give = () => done(token))));
        }""",
        [name, password],
    )
    expect(page).to_have_title("throws board.", timeout=PAGE_TIMEOUT_MS)
    page.clock.run_for(10_001)
    expect(page).to_have_title("throws board.late board.", timeout=PAGE_TIMEOUT_MS)
    page.evaluate("window.give()")
    expect(page).to_have_title("throws board.late board.late personal.", timeout=PAGE_TIMEOUT_MS)


# ---- storage and sessions -----------------------------------------------------------------------------------------

NO_STORAGE = """for (const name of ['localStorage', 'sessionStorage'])
  Object.defineProperty(window, name, {
    get() { throw new DOMException('The operation is insecure.', 'SecurityError'); },
  });"""
FULL_STORAGE = "Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); };"


@in_browser
@pytest.mark.parametrize("script", [NO_STORAGE, FULL_STORAGE], ids=["refused", "full"])
def test_all_works_without_storage(visitor: BrowserContext, live_server: Any, script: str) -> None:
    """Where storage is refused or full the page is live, and one logs in, acts and logs out."""
    page = visitor.new_page()
    page.add_init_script(script)
    page.goto(live_server.url)
    expect_state(page, "Live")
    username, password = player(page, live_server, 9)
    log_in(page, username, password)
    act(page)
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("button", name="Log in")).to_be_visible()


@in_browser
def test_keys_in_storage_begin_with_our_name(visitor: BrowserContext, live_server: Any) -> None:
    """What the page around us keeps under a name of its own stays as it is."""
    page = visitor.new_page()
    page.add_init_script("sessionStorage.transport = localStorage.user = 'mine'")
    page.goto(live_server.url)
    expect_state(page, "Live")
    log_in(page, *player(page, live_server, 10))
    kept = page.evaluate("() => [sessionStorage, localStorage].map((storage) => ({ ...storage }))")
    assert kept[0].pop("transport") == kept[1].pop("user") == "mine"
    assert kept[0] == {"scoreboard:transport": "WebSocket"}
    assert list(kept[1]) == ["scoreboard:user"]


def lose_answers(page: Page, visitor: BrowserContext, count: int) -> list[str]:
    """So many answers to a refresh get lost on their way: the server has spent the token, the browser keeps the old
    cookie."""
    asked: list[str] = []

    def lose(route: Route) -> None:
        asked.append(route.request.header_value("cookie") or "")
        if len(asked) > count:
            return route.continue_()
        kept: Any = visitor.cookies()
        route.fetch()
        visitor.clear_cookies()
        visitor.add_cookies(kept)
        return route.abort()

    page.route("**/api/v1/auth/refresh", lose)
    return asked


@in_browser
def test_lost_answers_to_a_refresh_log_nobody_out(visitor: BrowserContext, live_server: Any) -> None:
    """The refresh is repeated with the same token, and the session goes on, in this tab and in another one."""
    page = open_page(visitor, live_server.url)
    username, password = player(page, live_server, 4)
    log_in(page, username, password)
    other = open_page(visitor, live_server.url)
    expect(other.locator("#name")).to_have_text(username, timeout=PAGE_TIMEOUT_MS)
    asked = lose_answers(page, visitor, 2)
    page.reload()
    expect(page.locator("#name")).to_have_text(username, timeout=PAGE_TIMEOUT_MS)
    assert len(asked) == 3
    assert len(set(asked)) == 1
    other.reload()
    expect(other.locator("#name")).to_have_text(username, timeout=PAGE_TIMEOUT_MS)


@in_browser
def test_a_renewal_names_the_user(visitor: BrowserContext, live_server: Any) -> None:
    """Of this page, or of the browser's last visit: a token that a sibling domain has planted is another user's."""
    page = open_page(visitor, live_server.url)
    username, password = player(page, live_server, 5)
    log_in(page, username, password)
    user = page.evaluate("localStorage.getItem('scoreboard:user')")
    with page.expect_request("**/api/v1/auth/refresh") as asked:
        page.reload()
    assert asked.value.post_data_json == {"userId": user}
    expect(page.locator("#name")).to_have_text(username, timeout=PAGE_TIMEOUT_MS)
    program = """async ([username, password]) => {
      const { login } = await import('/scoreboard.js');
      const session = await login({ username, password });
      localStorage.setItem('scoreboard:user', ''); // another tab has found it ended
      return Boolean(await session.token(true));
    }"""
    with page.expect_request("**/api/v1/auth/refresh") as asked:
        assert page.evaluate(program, [username, password])
    assert asked.value.post_data_json == {"userId": user}


@in_browser
def test_tabs_that_renew_at_once_stay_logged_in(visitor: BrowserContext, live_server: Any) -> None:
    """Six tabs open at the same time, with one session; then one of them finds it ended while another has just begun a
    new one."""
    page = open_page(visitor, live_server.url)
    username, password = player(page, live_server, 3)
    log_in(page, username, password)
    tabs = [visitor.new_page() for _ in range(5)]
    for tab in tabs:
        tab.evaluate("(url) => { location.href = url; }", live_server.url)  # waits for nothing
    for tab in tabs:
        expect(tab.locator("#name")).to_have_text(username, timeout=PAGE_TIMEOUT_MS)
    tabs[0].evaluate(
        """() => { // a renewal elsewhere came too late
          localStorage.setItem('scoreboard:user', '');
        }"""
    )
    for tab in (page, *tabs):
        tab.evaluate("() => new Promise((done) => setTimeout(done, 100))")
        expect(tab.locator("#name")).to_have_text(username, timeout=PAGE_TIMEOUT_MS)
        assert tab.evaluate("localStorage.getItem('scoreboard:user')")


# ---- actions ------------------------------------------------------------------------------------------------------


@in_browser
def test_an_answer_that_is_lost_costs_nothing(visitor: BrowserContext, live_server: Any) -> None:
    """When the answer to an action gets lost, the same action goes out again, and its points count once."""
    page = open_page(visitor, live_server.url)
    username, password = player(page, live_server, 8)
    log_in(page, username, password)
    before = score(page, username)
    bodies: list[Any] = []

    def lose(route: Route) -> None:
        bodies.append(route.request.post_data_json)
        if len(bodies) == 1:
            route.fetch()  # it arrives
            route.abort()  # and its answer does not
        else:
            route.continue_()

    page.route("**/api/v1/scores/action", lose)
    points = act(page)
    expect(row(page, username).locator("td").last).to_have_text(f"{before + points:,}", timeout=PAGE_TIMEOUT_MS)
    # the live event may come first
    expect(page.locator(FREE)).not_to_have_attribute("aria-busy", "true", timeout=PAGE_TIMEOUT_MS)
    assert len(bodies) == 2
    assert bodies[0] == bodies[1]
