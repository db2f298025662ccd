"""The page that checks a proof: a real node and its log, in Chromium, with honest answers and with forged ones."""

import json
import re
from base64 import b64encode
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from scoreboard.domain.merkle import leaf_hash
from tests.e2e.browsing import Player, collect_errors, in_browser
from tests.e2e.server_processes import ServerProcess
from tests.e2e.test_accessibility import objections

PROOF = "**/api/v1/audit/proof*"
SEALED_SECONDS = 5  # what the contract promises
START = Callable[..., ServerProcess]


class Log:
    """A node, and a player whose actions are in its log."""

    def __init__(self, url: str) -> None:
        self.url, self.player = url, Player(url, "Ada")

    def act(self, action_id: str) -> None:
        """One action; returns when it is sealed."""
        self.player.act(action_id)
        deadline = monotonic() + SEALED_SECONDS
        while httpx.get(f"{self.url}/api/v1/audit/proof", params=self.query(action_id)).status_code != httpx.codes.OK:
            assert monotonic() < deadline, "an action is sealed within 5 s"
            sleep(0.05)

    def query(self, action_id: str) -> dict[str, str]:
        return {"userId": self.player.user, "actionId": action_id}

    def open(self, context: BrowserContext, action_id: str = "level-1") -> Page:
        """The page with its fields filled in by the link."""
        page = context.new_page()
        page.goto(f"{self.url}/audit#user={self.player.user}&action={action_id}")
        return page


@pytest.fixture
def log(start_node: START) -> Log:
    log = Log(start_node().url)
    for number in range(3):
        log.act(f"level-{number}")
    return log


def check(page: Page) -> None:
    page.get_by_role("button", name="Check").click()


def verdict(page: Page, words: str) -> None:
    expect(page.get_by_role("status")).to_have_text(words)


def forge(page: Page, change: Callable[[dict[str, Any]], None]) -> None:
    """A server that lies: its proof is changed on the way."""

    def answer(route: Route) -> None:
        data = json.loads(route.fetch().text())
        change(data["data"])
        route.fulfill(json=data)

    page.route(PROOF, answer)


@in_browser
def test_a_proof_is_checked_with_the_keyboard_alone(log: Log, visitor: BrowserContext) -> None:
    """Each step is told, with the proof's size and the time; what was seen is compared with at the next visit."""
    page = visitor.new_page()
    errors = collect_errors(page)
    page.goto(f"{log.url}/audit")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.type(log.player.user)
    page.keyboard.press("Tab")
    page.keyboard.type("level-1")
    page.keyboard.press("Enter")
    verdict(page, "This action is in the log.")
    steps = page.locator("#steps li")
    expect(steps).to_have_count(3)
    for step in steps.all():
        expect(step).to_have_text(re.compile("^Holds "))
    cost = page.locator("#cost").inner_text()
    found = re.search(r"has (\d+) bytes. Checking it took ([\d.]+) ms", cost)
    assert found is not None
    assert int(found[1]) < 2000
    print(cost)  # for .github/SECURITY.md
    log.act("level-9")
    page = log.open(visitor, "level-9")
    check(page)
    verdict(page, "This action is in the log.")
    expect(steps_of(page)).to_have_count(4)
    expect(steps_of(page).last).to_contain_text("The log still has the 3 records")
    page.get_by_text("The record and its proof").click()
    expect(page.locator("#proof")).to_contain_text('"checkpoint"')
    assert errors == []


def steps_of(page: Page) -> Any:
    return page.locator("#steps li")


def points(data: dict[str, Any]) -> None:
    data["record"] = data["record"].replace('"points":', '"points":9')


def own_leaf(data: dict[str, Any]) -> None:
    """The whole tree is one forged record; the checkpoint is signed for another."""
    points(data)
    data |= {"index": 0, "size": 1, "path": []}


def another_path(data: dict[str, Any]) -> None:
    data["path"][0] = leaf_hash(b"forged").hex()


def another_index(data: dict[str, Any]) -> None:
    data["index"] = 0


def another_size(data: dict[str, Any]) -> None:
    data["checkpoint"] = data["checkpoint"].replace(f"\n{data['size']}\n", "\n9\n")
    data["size"] = 9


def another_root(data: dict[str, Any]) -> None:
    """The record's own hash as the root of one leaf: it fits, and nobody signed it."""
    own_leaf(data)
    lines = data["checkpoint"].split("\n")
    lines[1], lines[2] = "1", b64encode(leaf_hash(data["record"].encode())).decode()
    data["checkpoint"] = "\n".join(lines)


def another_salt(data: dict[str, Any]) -> None:
    data["salt"] = "00" * 16


@in_browser
def test_forged_proofs_are_refused(log: Log, visitor: BrowserContext) -> None:
    for change in (points, own_leaf, another_path, another_index, another_size, another_root, another_salt):
        page = log.open(visitor)
        forge(page, change)
        check(page)
        verdict(page, "This proof is not valid.")
        expect(page.locator("#steps .fails").first).to_have_text(re.compile("^Fails "))
        page.close()


@in_browser
def test_the_proof_of_another_action_is_refused(log: Log, visitor: BrowserContext) -> None:
    """The server answers with an honest proof, of something else."""
    page = log.open(visitor)
    other = httpx.get(f"{log.url}/api/v1/audit/proof", params=log.query("level-2")).text
    page.route(PROOF, lambda route: route.fulfill(body=other, content_type="application/json"))
    check(page)
    verdict(page, "This proof is not valid.")
    expect(page.locator("#steps .fails")).to_have_text("Fails The record is about another action or another user.")


@in_browser
def test_a_key_from_elsewhere_and_a_log_that_was_seen_differently(log: Log, visitor: BrowserContext) -> None:
    """Another key refuses the signature. A checkpoint that this browser has seen shows a rewritten log, and one that
    went back."""
    key = httpx.get(f"{log.url}/api/v1/audit/key").text.strip()
    page = log.open(visitor)
    field = page.get_by_label("The log's public key")
    field.fill("sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8")
    check(page)
    verdict(page, "This proof is not valid.")
    field.fill("nonsense")
    check(page)
    expect(page.get_by_role("status")).to_contain_text("not one of a log")
    field.fill(key)
    check(page)
    verdict(page, "This action is in the log.")
    for size, words in ((2, "The log was rewritten"), (99, "The log went back")):
        note = f"scoreboard\\n{size}\\n{'A' * 43}=\\n"
        page.evaluate(f"localStorage.setItem('scoreboard:log', JSON.stringify({{key: '{key}', note: '{note}'}}))")
        check(page)
        verdict(page, "This proof is not valid.")
        expect(page.locator("#steps .fails")).to_contain_text(words)


@in_browser
def test_what_is_not_there_is_said(log: Log, visitor: BrowserContext) -> None:
    page = log.open(visitor, "absent")
    check(page)
    verdict(page, "The log does not have this action. A new one is in it within 5 s.")
    page.route(PROOF, lambda route: route.fulfill(body="<html>", content_type="text/html"))
    check(page)
    verdict(page, "The answer is not a proof.")
    page.unroute(PROOF)
    page.route(PROOF, lambda route: route.abort())
    check(page)
    verdict(page, "The server does not answer.")


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(log: Log, browser: Browser, scheme: Any) -> None:
    """Empty, with a proof, with a forged one; wide and narrow."""
    context = browser.new_context(color_scheme=scheme, bypass_csp=True)
    page = log.open(context)
    found = objections(page)
    check(page)
    verdict(page, "This action is in the log.")
    page.get_by_text("The record and its proof").click()
    found += objections(page)
    page.set_viewport_size({"width": 360, "height": 800})
    forge(page, points)
    check(page)
    verdict(page, "This proof is not valid.")
    found += objections(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert not found, "\n".join(found)
    context.close()
