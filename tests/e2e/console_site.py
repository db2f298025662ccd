"""A node with users of each role, and with something to decide about, for tests of the console."""

import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import asyncpg
from playwright.sync_api import BrowserContext, Page, expect

from tests.conftest import in_asyncio
from tests.e2e.browsing import Player
from tests.e2e.server_processes import ServerProcess

PASSWORD = "a long password"
MARKUP = "<img src=x onerror=alert(1)>"
EVIDENCE = b"<script>alert(1)</script>"

HOLD = """
INSERT INTO held_actions (user_id, action_id, action_type, points, timestamp_ms, signature, metadata, body_sha256,
    evidence_sha256, evidence_size, expires_at, undecided, retention_days)
VALUES ($1, $2, 'race_finish', 5, 1, 's', $3, '', $4, $5, now() + interval '1 day', 'refuse', 1) RETURNING id"""
UPLOAD = "INSERT INTO evidence (user_id, sha256, content) VALUES ($1, $2, $3)"
FLAG = "INSERT INTO flags (rule, user_id, evidence) VALUES ('points_jump', $1, $2) RETURNING id"


class ConsoleSite:
    """The node at `node`. Each user's password is PASSWORD."""

    def __init__(self, node: ServerProcess) -> None:
        self.node, self.url = node, f"{node.url}/console"
        self.users: dict[str, Player] = {}

    def add(self, name: str, role: str | None = None) -> Player:
        """A new user with that role."""
        made = self.users[name] = Player(self.node.url, name)
        self.set_role(name, role)
        return made

    def set_role(self, name: str, role: str | None) -> None:
        self.query("UPDATE users SET role = $2 WHERE id = $1", self.users[name].user, role)

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a statement, by a connection of its own."""

        async def run() -> list[tuple[Any, ...]]:
            connection = await asyncpg.connect(self.node.settings.postgres.url.get_secret_value())
            try:
                return [tuple(row) for row in await connection.fetch(sql, *values)]
            finally:
                await connection.close()

        rows: list[tuple[Any, ...]] = in_asyncio(run)
        return rows

    def flag(self, name: str) -> int:
        """An open flag of that user; its number."""
        evidence = json.dumps({"points": 2000, "limit": 1000})
        return int(self.query(FLAG, self.users[name].user, evidence)[0][0])

    def hold(self, name: str, action_id: str, *, evidence: bytes = b"") -> int:
        """An action of that user that waits; its number."""
        digest = sha256(evidence).digest() if evidence else None
        user, metadata = self.users[name].user, json.dumps({"note": MARKUP})
        number = self.query(HOLD, user, action_id, metadata, digest, len(evidence) or None)[0][0]
        if evidence:
            self.query(UPLOAD, user, digest, evidence)
        return int(number)

    def events(self) -> list[tuple[str, str]]:
        """Kind and actor's name of each decision, the oldest first."""
        return [
            (str(kind), str(name))
            for kind, name in self.query(
                "SELECT kind, username FROM audit_events JOIN users ON users.id::text = actor ORDER BY audit_events.id"
            )
        ]

    def open(self, context: BrowserContext, name: str, place: str = "") -> Page:
        """The console, with that user logged in by its form."""
        page = context.new_page()
        page.goto(f"{self.url}#/{place}")
        log_in(page, name)
        return page


def log_in(page: Page, name: str) -> None:
    page.get_by_label("User name or e-mail").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#enter")).to_be_hidden()


def confirm(page: Page, button: str, reason: str = "") -> None:
    """Fills the open dialog in, and confirms."""
    dialog = page.get_by_role("dialog")
    if reason:
        dialog.get_by_label("Reason", exact=True).fill(reason)
    dialog.get_by_role("button", name=button, exact=True).click()
    expect(dialog).to_be_hidden()


StartNode = Callable[..., ServerProcess]
