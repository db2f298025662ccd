"""A real browser for end-to-end tests: Debian's Chromium, visitors with fresh profiles, and a network that can be cut.

`browser` and `visitor` are fixtures (conftest takes them in). Nobody is named here: players are taken from the board
that the page shows, so that any demo data will do.
"""

import json
import re
import select
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from hmac import digest
from typing import Any
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP plain.test 127.0.0.1",
]
# this machine under a name: over plain http no secure context, as pages of another machine are
PLAIN_HOST = "plain.test"
PAGE_TIMEOUT_MS = 15_000  # ms; bounds a hang, measures nothing
FREE = "[data-action][data-cooldown^='0']"  # the button of an action that can be done at any time

in_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def visitor(browser: Browser) -> Iterator[BrowserContext]:
    """A visitor, who may open several tabs; what a tab's CSP forbids is an error of its console."""
    context = browser.new_context()
    context.set_default_timeout(PAGE_TIMEOUT_MS)
    context.add_init_script(
        "addEventListener('securitypolicyviolation', "
        "(e) => console.error('CSP ' + e.violatedDirective + ' ' + e.blockedURI))"
    )
    yield context
    context.close()


def collect_errors(page: Page) -> list[str]:
    """The errors and warnings of this tab's console, from now on."""
    errors: list[str] = []

    def on_message(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            errors.append(message.text)

    page.on("console", on_message)
    page.on("pageerror", lambda error: errors.append(str(error)))
    return errors


def expect_state(page: Page, words: str) -> None:
    """Waits until the state line has these words."""
    expect(page.locator("#state")).to_contain_text(words, timeout=PAGE_TIMEOUT_MS)


def open_page(visitor: BrowserContext, url: str, words: str = "Live") -> Page:
    page = visitor.new_page()
    page.goto(url)
    expect_state(page, words)
    return page


def player(page: Page, live_server: Any, rank: int) -> tuple[str, str]:
    """User name and password of whoever has this rank now."""
    username, password = live_server.user(page.locator(f"#board tr:nth-child({rank}) bdi").inner_text())
    return username, password


def log_in(page: Page, username: str, password: str) -> None:
    """Logs in by the form; returns when the page shows this user, with a score, in place of the form."""
    page.get_by_label("User name").fill(username)
    page.get_by_label("Password", exact=True).fill(password)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#enter")).to_be_hidden(timeout=PAGE_TIMEOUT_MS)
    expect(page.locator("#me")).to_be_visible()
    expect(page.locator("#name")).to_have_text(username, timeout=PAGE_TIMEOUT_MS)
    expect(page.locator("#score")).to_have_text(re.compile(r"\d"), timeout=PAGE_TIMEOUT_MS)


def row(page: Page, username: str) -> Any:
    return page.locator("#board tr").filter(has=page.get_by_text(username, exact=True))


def score(page: Page, username: str) -> int:
    return int(row(page, username).locator("td").last.inner_text().replace(",", ""))


def act(page: Page) -> int:
    """Completes the action that is always free; the points it gave."""
    page.locator(FREE).click()
    expect(page.locator("#note")).to_have_text(re.compile(r"^\+\d+ points"), timeout=PAGE_TIMEOUT_MS)
    points = re.search(r"\d+", page.locator("#note").inner_text())
    assert points is not None
    return int(points[0])


class Player:
    """A new account of a node, who plays without a browser."""

    def __init__(self, url: str, name: str) -> None:
        body = {"username": name, "email": f"{uuid4().hex}@example.org", "password": "a long password"}
        answer = httpx.post(f"{url}/api/v1/auth/register", json=body, timeout=PAGE_TIMEOUT_MS / 1000)
        assert answer.status_code == httpx.codes.CREATED, answer.text
        self._url, self._session = url, answer.json()["data"]

    def act(self, action_id: str = "") -> int:
        """One action; the total after it."""
        action = {
            "actionId": action_id or str(uuid4()),
            "actionType": "task_finish",
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "metadata": {},
        }
        body = json.dumps(action).encode()
        fields = {
            "authorization": f"Bearer {self._session['accessToken']}",
            "content-type": "application/json",
            "x-action-signature": digest(self._session["actionSecret"].encode(), body, "sha256").hex(),
        }
        answer = httpx.post(f"{self._url}/api/v1/scores/action", content=body, headers=fields)
        assert answer.status_code == httpx.codes.OK, answer.text
        return int(answer.json()["data"]["newScore"])

    @property
    def user(self) -> str:
        return str(self._session["userId"])

    def end_sessions(self) -> None:
        """Logs out everywhere."""
        fields = {"authorization": f"Bearer {self._session['accessToken']}"}
        answer = httpx.delete(f"{self._url}/api/v1/users/me/sessions", headers=fields)
        assert answer.status_code == httpx.codes.NO_CONTENT, answer.text

    def change(self, **profile: str | None) -> None:
        """Another name or picture."""
        fields = {"authorization": f"Bearer {self._session['accessToken']}"}
        answer = httpx.patch(f"{self._url}/api/v1/users/me", json=profile, headers=fields)
        assert answer.status_code == httpx.codes.OK, answer.text


class Proxy:
    """A network between browser and server. `cut` ends every connection and lets none begin; `swallow` holds requests
    back that contain one of these bytes, as a proxy does that collects a stream or knows no WebSocket: no answer, no
    end."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.is_cut = False
        self.swallow: set[bytes] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        self.is_cut = True
        self.drop()

    def drop(self) -> None:
        """Ends what is open."""
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.is_cut:
                client.close()
                continue
            threading.Thread(target=self._carry, args=(client, self.target), daemon=True).start()

    def _carry(self, client: socket.socket, target: int) -> None:
        with suppress(OSError), closing(client), closing(socket.create_connection(("127.0.0.1", target))) as server:
            ends = {client: server, server: client}
            self._open |= ends.keys()
            try:
                while True:
                    for end in select.select(list(ends), [], [])[0]:
                        data = end.recv(65_536)
                        if not data:
                            return
                        if end is server or not any(part in data for part in self.swallow):
                            ends[end].sendall(data)
            finally:
                self._open -= ends.keys()


@contextmanager
def proxy(port: int) -> Iterator[Proxy]:
    between = Proxy(port)
    yield between
    between.close()
