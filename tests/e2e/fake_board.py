"""The page's own files in a real browser, without a server: the tab's WebSocket is played in the tab, so a test sets
any board at once.

For tests of how things look and of what the page does with what it hears. What a server does is for the tests with a
server.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import jinja2
from playwright.sync_api import BrowserContext, Page, Route

from scoreboard.web.pages.first_paint import PageAction, render_context
from scoreboard.web.pages.site import CLIENT, CLIENT_ENTRY, TYPES

WEB = Path(__file__).parents[2] / "scoreboard" / "web"
# nobody is asked: every request is answered here. Browsers trust this name, so actions can be signed
ORIGIN = "http://localhost:9"
ACTIONS = [
    PageAction("quiz_complete", "Complete a quiz", "30", 30, {"difficulty": "hard"}),
    PageAction("task_finish", "Finish a task", "20", 0),
    PageAction("daily_login", "Come back each day", "15", 86_400),
    PageAction("friend_invite", "Invite a friend", "100", 3_600),
]

# `server.rows` is the board; `server.draw(rows)` sends it, `server.sendEvent(event, data)` anything else. A frozen
# server sends nothing.
SOCKET = """
globalThis.server = {
  rows: [], position: 0, open: new Set(), dialled: 0, frozen: false, timestamp: '2026-01-02T03:04:05.000Z', sent: [],
  sendEvent(event, data) {
    if (!this.frozen) for (const socket of this.open) socket.onmessage({ data: JSON.stringify({ event, data }) });
  },
  board() {
    const position = '1-' + this.position;
    return { leaderboard: this.rows, position, timestamp: this.timestamp, changedPositions: [] };
  },
  draw(rows) { this.rows = rows; this.position++; this.sendEvent('leaderboard:update', this.board()); },
};
globalThis.WebSocket = class {
  readyState = 0;
  constructor() {
    server.dialled++;
    setTimeout(() => {
      if (server.frozen) return;
      this.readyState = 1;
      server.open.add(this);
      this.onopen?.();
    });
  }
  send(text) {
    const message = JSON.parse(text);
    server.sent.push(message);
    const answer = (event, data) => server.frozen || this.onmessage({ data: JSON.stringify({ event, data }) });
    if (message.action === 'ping') answer('pong');
    if (message.action !== 'subscribe') return;
    answer('subscribed', { channel: 'leaderboard', heartbeatSeconds: message.heartbeat ? 3 : undefined });
    answer('leaderboard:update', server.board());
  }
  close() {
    server.open.delete(this);
    this.readyState = 3;
  }
};
"""
EMBED = (
    "<!doctype html><html lang=en><title>Embed</title><style>body{margin:0}</style>"
    "<script type=module src=/scoreboard.js></script>"
)


def entries(rows: list[tuple[str, int]]) -> list[dict[str, Any]]:
    """Rows of a board as the live API sends them."""
    return [
        {"rank": rank, "userId": f"user-{rank}", "username": name, "score": score}
        for rank, (name, score) in enumerate(rows, 1)
    ]


class FakeBoard:
    """Everything that tabs of this visitor ask is answered from the disk. `api` has answers of the API by path: status
    and JSON."""

    def __init__(self, visitor: BrowserContext, rows: list[tuple[str, int]], **settings: Any) -> None:
        self.rows, self.settings = rows, settings
        self.api: dict[str, tuple[int, Any]] = {}
        self.asked: list[tuple[str, Any]] = []
        self.is_down = False  # no answer to any request of the API
        self.is_unreadable = False  # the page comes without a board, as when no store can be read
        jinja = jinja2.Environment(loader=jinja2.FileSystemLoader(WEB / "templates"), autoescape=True)
        self._template = jinja.get_template("index.html")
        visitor.add_init_script(SOCKET + f"server.rows = {json.dumps(entries(rows))};")
        visitor.route(f"{ORIGIN}/**", self._answer)

    def open(self, page: Page, path: str = "/") -> Page:
        page.goto(ORIGIN + path)
        page.wait_for_function("server.open.size > 0")
        return page

    def _answer(self, route: Route) -> None:
        url = urlsplit(route.request.url)
        if url.path == "/":
            route.fulfill(body=self._page(stage=url.query == "stage"), content_type=TYPES[".html"])
        elif url.path == "/embed":
            route.fulfill(
                body=EMBED + "<main><h1>Embed</h1><live-scoreboard limit=10></live-scoreboard></main>",
                content_type=TYPES[".html"],
            )
        elif url.path == f"/{CLIENT}":
            route.fulfill(body=CLIENT_ENTRY, content_type=TYPES[".js"])
        elif url.path.startswith("/static/"):
            file = WEB / "static" / url.path.rpartition("/")[2]
            route.fulfill(body=file.read_bytes(), content_type=TYPES[file.suffix])
        elif self.is_down:
            route.abort()
        else:
            path = url.path.removeprefix("/api/v1")
            self.asked.append((path, route.request.post_data_json if route.request.post_data else None))
            status, answer = self.api.get(path, (404, {}))
            route.fulfill(status=status, json=answer) if answer is not None else route.fulfill(status=status)

    def _page(self, *, stage: bool) -> str:
        rows = [SimpleNamespace(**row, avatarUrl=None) for row in entries(self.rows)]
        updated = "2026-01-02T03:04:05.000Z" if rows else ""
        shown = None if self.is_unreadable else rows
        return self._template.render(
            **render_context(shown, ACTIONS, updated=updated, per_minute=10, stage=stage, **self.settings)
        )
