"""The browser client, scoreboard.js: deltas, gaps, lost connections, networks that let only some transports through, safe submission.

In Debian's Chromium against the real server; where a server has to misbehave, the test plays it.
"""

import json
import random
from collections.abc import Callable
from typing import Any

import msgspec
from playwright.sync_api import BrowserContext, Page, Route, WebSocket, WebSocketRoute, expect

from scoreboard.domain import wire
from scoreboard.domain.boards import Entry, Snapshot
from scoreboard.domain.deltas import compare
from tests.e2e.browsing import FREE, PATIENCE, Player, act, in_browser, log_in, open_page, player, proxy, row, says, score
from tests.e2e.nodes import ServerProcess

StartNode = Callable[..., ServerProcess]

HIDE = """(hidden) => {
  Object.defineProperty(document, 'hidden', { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event('visibilitychange'));
}"""


class Spoken:
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
    """Whatever changed between two ticks: the server's delta applied to the rows before gives exactly the rows after."""
    random.seed(20_261)
    boards: list[tuple[Entry, ...]] = [()]
    deltas = []
    for step in range(1, 300):
        boards.append(random_board(boards[-1]))
        snapshot = Snapshot("leaderboard", 1, step, step, 0, boards[-1])
        deltas.append(json.loads(wire.delta(f"1-{step - 1}", compare(boards[-2], boards[-1]), snapshot))["data"])
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
    """A restart brings it back within a second, overload much later, a bad token with another one; a foreign origin ends it."""
    page = open_page(visitor, live_server.url)
    after = page.evaluate(
        """async () => {
          const { afterClose } = await import('/scoreboard.js');
          const worst = (code, attempt) => Math.max(...Array.from({ length: 200 }, () => afterClose(code, attempt).delay));
          return {
            foreign: afterClose(4403, 0), expired: afterClose(4401, 0, { anonymous: false }), stranger: afterClose(4401, 0),
            refused: afterClose(4400, 0), dead: afterClose(1006, 0, { proven: false }), busy: afterClose(1013, 0, { proven: false }),
            restart: worst(1012, 0), failed: [worst(1006, 0), worst(1006, 3), worst(1006, 99)], overloaded: worst(1013, 0),
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
        def hear(message: str | bytes) -> None:
            asked.append(json.loads(message))
            if asked[-1]["action"] != "subscribe":
                return
            if len(asked) == 1:
                tell("update", leaderboard=[ada], position="1-1", changedPositions=[])
                tell("delta", changed=[{**ada, "previousRank": 1, "score": 40}], removed=[], position="1-4", previousPosition="1-3")
            else:
                tell("delta", changed=[{**ada, "previousRank": 1, "score": 30}], removed=[], position="1-3", previousPosition="1-1")
                tell("delta", changed=[{**ada, "previousRank": 1, "score": 40}], removed=[], position="1-4", previousPosition="1-3")
                named = {**ada, "previousRank": 1, "score": 40, "username": "Grace"}  # nobody scored: the position stays
                tell("delta", changed=[named], removed=[], position="1-4", previousPosition="1-4")

        def tell(event: str, **data: Any) -> None:
            socket.send(json.dumps({"event": f"leaderboard:{event}", "data": {**data, "timestamp": "2026-01-01T00:00:00.000Z"}}))

        socket.on_message(hear)

    page = visitor.new_page()
    page.route_web_socket("**/api/v1/scores/live", serve)
    page.goto(live_server.url)
    expect(page.locator("#board tr").first.locator("td").last).to_have_text("40", timeout=PATIENCE)
    expect(page.locator("#board tr").first.locator("bdi")).to_have_text("Grace")
    assert [message.get("since") for message in asked] == [None, "1-1"]
    assert {message["mode"] for message in asked} == {"delta"}


# ---- a connection's life ------------------------------------------------------------------------------------------


@in_browser
def test_a_tab_that_was_cut_off_catches_up(visitor: BrowserContext, start_node: StartNode) -> None:
    """Cut off it says so; back again it resumes from its position, is told only what it missed, and shows what others show."""
    node = start_node(limits__user_per_minute="0")
    players = [Player(node.url, f"Player {number}") for number in range(4)]
    for each in players:
        each.act()
    with proxy(node.port) as network:
        away, here = visitor.new_page(), open_page(visitor, node.url)
        spoken = Spoken(away)
        away.goto(network.url)
        says(away, "Live")
        shown = away.locator("#board").inner_text()
        network.swallow = {b"/api/v1/scores/stream", b"/api/v1/scores/poll"}  # they would bring the whole board
        network.cut()
        says(away, "Reconnecting")
        total = [players[3].act() for _ in range(3)][-1]
        expect(here.locator("#board tr").first).to_contain_text(f"{total:,}", timeout=PATIENCE)
        assert away.locator("#board").inner_text() == shown
        network.is_cut = False
        away.evaluate("dispatchEvent(new Event('online'))")  # what the browser says when the network is back
        says(away, "Live")
        expect(away.locator("#board tr").first).to_contain_text(f"{total:,}", timeout=PATIENCE)
        sent, received = spoken.sockets[-1]
        assert [message["since"] for message in subscriptions(sent)] == [newest(spoken.sockets[0][1])]
        assert "leaderboard:update" not in {message["event"] for message in received}
        for place in range(1, 5):
            name = here.locator(f"#board tr:nth-child({place}) bdi").inner_text()
            expect(away.locator(f"#board tr:nth-child({place}) bdi")).to_have_text(name)


@in_browser
def test_networks_without_websocket_or_streams(visitor: BrowserContext, live_server: Any) -> None:
    """WebSocket held back: the stream; that too: long poll, with one's own score; what worked is remembered, the best comes back."""
    with proxy(live_server.port) as network:
        network.swallow = {b"/api/v1/scores/live"}
        watching = open_page(visitor, network.url, "SSE")
        acting = open_page(visitor, live_server.url)
        username, password = player(acting, live_server, 7)
        log_in(acting, username, password)

        def seen() -> None:
            points = score(acting, username) + act(acting)
            expect(row(watching, username).locator("td").last).to_have_text(f"{points:,}", timeout=PATIENCE)

        seen()
        sockets: list[WebSocket] = []
        watching.on("websocket", lambda socket: sockets.append(socket))
        watching.reload()
        says(watching, "SSE")
        assert sockets == []  # it knows by now
        seen()
        network.swallow.add(b"/api/v1/scores/stream")
        network.drop()
        says(watching, "Polling")
        seen()
        log_in(watching, username, password)
        seen()
        expect(watching.locator("#score")).to_have_text(f"{score(acting, username):,}", timeout=PATIENCE)
        network.swallow = set()
        watching.evaluate("dispatchEvent(new Event('online'))")
        says(watching, "WebSocket")
        seen()


@in_browser
def test_out_of_sight_it_pauses(visitor: BrowserContext, live_server: Any) -> None:
    """A hidden tab lets its connection go; seen again it is live at once, from the position that it had."""
    page = visitor.new_page()
    spoken = Spoken(page)
    page.goto(live_server.url)
    says(page, "Live")
    expect(page.locator("#board tr").first).to_be_visible()
    page.evaluate(HIDE, True)
    says(page, "Paused")
    known = newest(spoken.sockets[0][1])
    page.evaluate(HIDE, False)
    says(page, "Live")
    assert [message["since"] for message in subscriptions(spoken.sockets[-1][0])] == [known]
    assert len(spoken.sockets) == 2


@in_browser
def test_a_client_moves_to_another_node(visitor: BrowserContext, start_node: StartNode) -> None:
    """When its node goes, the client resumes on another one under the same position: it is told what it missed, not the whole board."""
    first, second = start_node(limits__user_per_minute="0"), start_node(limits__user_per_minute="0")
    players = [Player(second.url, f"Player {number}") for number in range(3)]
    for each in players:
        each.act()
    with proxy(first.port) as network:
        open_page(visitor, second.url)  # what somebody watches the node remembers for a while
        page = visitor.new_page()
        spoken = Spoken(page)
        page.goto(network.url)
        says(page, "Live")
        expect(page.locator("#board tr[data-user]")).to_have_count(3, timeout=PATIENCE)
        network.target = second.port
        with page.expect_websocket():
            first.stop()
        total = players[2].act()
        says(page, "Live")
        expect(page.locator("#board tr").first).to_contain_text(f"{total:,}", timeout=PATIENCE)
        sent, received = spoken.sockets[-1]
        assert len(spoken.sockets) > 1
        assert subscriptions(sent)[0]["since"] == newest(spoken.sockets[0][1])
        assert "leaderboard:update" not in {message["event"] for message in received}


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
    expect(row(page, username).locator("td").last).to_have_text(f"{before + points:,}", timeout=PATIENCE)
    expect(page.locator(FREE)).not_to_have_attribute("aria-busy", "true", timeout=PATIENCE)  # the live event may come first
    assert len(bodies) == 2
    assert bodies[0] == bodies[1]
