"""Actions that must be proven, on a whole node: started, asked about, held, decided on another node; on the page."""

import json
import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import httpx
import trio
from playwright.sync_api import BrowserContext, expect

from scoreboard.app.writes import build_writes
from scoreboard.domain.boards import BOARDS
from scoreboard.domain.conditions import Verdict
from scoreboard.runtime.breaker import Breaker
from scoreboard.storage.bus import Bus
from scoreboard.storage.postgres.held_actions import HeldRow, waiting
from scoreboard.storage.start_stores import start_stores
from scoreboard.workers.committer import commit_batches
from tests.conftest import in_thread
from tests.e2e.browsing import PAGE_TIMEOUT_MS, collect_errors, in_browser, log_in, open_page
from tests.e2e.server_processes import ServerProcess, register, viewer
from tests.https_server import Reply, https_server

StartNode = Callable[..., ServerProcess]
BLOB = b"replay" * 20_000  # more than the limit of other bodies
EVIDENCE = {"sha256": sha256(BLOB).hexdigest(), "size": len(BLOB)}


async def decide(node: ServerProcess, verdict: Verdict) -> None:
    """Decides about the oldest waiting action, as another node of the installation."""
    async with start_stores(node.settings) as stores, trio.open_nursery() as nursery:
        parts = build_writes(
            node.settings,
            stores,
            BOARDS,
            Breaker("redis"),
            bus=Bus(stores),
            node="other",
            on_board_changed=lambda _board, _version: None,
        )
        await nursery.start(commit_batches, parts.queue, parts.commits[0], lambda _board, _version: None)
        (row, *_) = await waiting(stores, 0, 1)
        decided = await parts.held_actions.decide("moderator", row.user, row.action_id, verdict, "as the replay shows")
        assert isinstance(decided, HeldRow), decided
        nursery.cancel_scope.cancel()


async def test_held_actions_are_decided_on_another_node(start_node: StartNode) -> None:
    """202, evidence, a list; `score:personal` after an approval, `score:rejected` after a refusal."""
    node = start_node(limits__user_per_minute="0")
    async with httpx.AsyncClient(base_url=node.url) as http:
        user = await register(http)
        body = user.body(actionType="record_claim", metadata=None, evidence=EVIDENCE)
        answer = await user.act(body)
        assert (answer.status_code, answer.json()["data"]["status"]) == (202, "held")
        uploaded = await http.put(
            f"/api/v1/actions/evidence/{EVIDENCE['sha256']}", content=BLOB, headers=user.authorization
        )
        assert uploaded.status_code == 204
        async with viewer(node, token=user.token, subscribe=False) as mine:
            await mine.next_event("authenticated")
            await decide(node, Verdict.APPROVE)
            assert (await mine.next_event("score:personal"))["pointsAwarded"] == 200
            again = await user.act(body)
            assert (again.status_code, again.json()["data"]["status"]) == (202, "approved")
            assert (await user.leaderboard())["currentUser"]["score"] == 200
        other = await register(http)
        third = other.body(actionType="record_claim", metadata=None, evidence=EVIDENCE)
        assert (await other.act(third)).status_code == 202
        async with viewer(node, token=other.token, subscribe=False) as theirs:
            await theirs.next_event("authenticated")
            await decide(node, Verdict.REFUSE)
            rejected = await theirs.next_event("score:rejected")
            assert rejected == {
                "actionId": json.loads(third)["actionId"],
                "actionType": "record_claim",
                "reason": "as the replay shows",
            }
        listed = (await http.get("/api/v1/users/me/held", headers=other.authorization)).json()["data"]["held"]
        assert [(row["status"], row["reason"]) for row in listed] == [("refused", "as the replay shows")]


async def test_a_start_and_a_referee_on_a_whole_node(start_node: StartNode, tmp_path: Path) -> None:
    """A start counts once; a type with a webhook is asked about over TLS, and fails closed while nobody answers; other
    types go on."""
    async with https_server(tmp_path) as referee:
        file = tmp_path / "actions.toml"
        file.write_text(
            '[run]\ntitle = "Run"\npoints = 5\nstarted = { expires = 60 }\n'
            f'[duel]\ntitle = "Duel"\npoints = 9\nwebhook = {{ url = "{referee.url}/check", '
            'secret = "0123456789abcdef" }\n[plain]\ntitle = "Plain"\npoints = 1\n'
        )
        node = start_node(
            actions__file=str(file),
            limits__user_per_minute="0",
            outgoing__private_hosts="localhost",
            outgoing__ca_file=str(referee.ca_file),
        )
        async with httpx.AsyncClient(base_url=node.url) as http:
            user = await register(http)

            async def act(kind: str, **others: object) -> httpx.Response:
                return await user.act(user.body(actionType=kind, metadata=None, **others))

            started = await http.post("/api/v1/actions/start", json={"actionType": "run"}, headers=user.authorization)
            start = started.json()["data"]["startId"]
            assert [(await act("run", startId=start)).status_code for _ in range(2)] == [200, 400]
            assert (await act("run")).json()["errors"][0]["field"] == "startId"

            body = user.body(actionType="duel", metadata=None)
            closed = await user.act(body)  # 404
            assert (closed.status_code, closed.headers["retry-after"]) == (503, "1")
            referee.replies["/check"] = Reply(b'{"accept": true, "points": 4}')
            counted = await user.act(body)
            assert (counted.status_code, counted.json()["data"]["pointsAwarded"]) == (200, 4)
            asked = len(referee.asked)
            assert (await user.act(body)).status_code == 409
            assert len(referee.asked) == asked  # a retry of what was recorded asks nobody
            referee.replies["/check"] = Reply(b'{"accept": false, "reason": "never played"}')
            refused = await act("duel")
            assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_ACTION")
            assert "never played" in refused.json()["detail"]
            assert (await act("plain")).status_code == 200
        assert "0123456789abcdef" not in node.log.read_text()


@in_browser
def test_the_page_shows_what_waits(start_node: StartNode, visitor: BrowserContext) -> None:
    """A riddle begins and is solved; a record waits for a decision, also after a reload, until it is decided."""
    node = start_node(limits__user_per_minute="0")
    username, password = "Ada", "a long password"
    body = {"username": username, "email": "ada@example.org", "password": password}
    assert httpx.post(f"{node.url}/api/v1/auth/register", json=body).status_code == 201
    page = open_page(visitor, node.url)
    errors = collect_errors(page)
    log_in(page, username, password)
    note, riddle = page.locator("#note"), page.locator("[data-action=riddle_solve]")
    riddle.click()
    expect(note).to_contain_text("has begun", timeout=PAGE_TIMEOUT_MS)
    expect(riddle).to_have_attribute("aria-disabled", "true")
    expect(riddle).not_to_have_attribute("aria-disabled", "true", timeout=PAGE_TIMEOUT_MS)
    riddle.click()
    expect(note).to_have_text(re.compile(r"^\+60 points"), timeout=PAGE_TIMEOUT_MS)
    page.locator("[data-action=record_claim]").click()
    expect(note).to_have_text("“Claim a record” waits for a decision.", timeout=PAGE_TIMEOUT_MS)
    page.reload()
    expect(note).to_have_text("One action waits for a decision.", timeout=PAGE_TIMEOUT_MS)
    in_thread(trio.run, decide, node, Verdict.REFUSE)
    expect(note).to_have_text("“Claim a record” was not accepted: as the replay shows", timeout=PAGE_TIMEOUT_MS)
    assert errors == []
