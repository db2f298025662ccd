"""The console in a real browser, as each role: what it offers, and what each decision does in the database.

Also tests web/pages/console_page.py.
"""

from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.e2e.browsing import PAGE_TIMEOUT_MS, collect_errors, in_browser
from tests.e2e.console_site import EVIDENCE, MARKUP, PASSWORD, ConsoleSite, StartNode, confirm, log_in
from tests.e2e.test_accessibility import objections


@pytest.fixture
def site(start_node: StartNode) -> ConsoleSite:
    """Adam is admin, Mia and Max are moderators, Vic is viewer; Ann plays."""
    site = ConsoleSite(start_node(limits__user_per_minute="0"))
    for name, role in {"Adam": "admin", "Mia": "moderator", "Max": "moderator", "Vic": "viewer", "Ann": None}.items():
        site.add(name, role)
    for number in range(3):
        site.users["Ann"].act(f"level-{number}")
    return site


def go(page: Page, site: ConsoleSite, place: str) -> None:
    page.goto(f"{site.url}#/{place}")
    expect(page.locator("#view h2")).to_be_visible()
    expect(page.locator("#view")).not_to_have_attribute("aria-busy", "true")


def notice(page: Page, words: str) -> None:
    expect(page.locator("#notice")).to_contain_text(words)


def buttons(page: Page) -> list[str]:
    return page.locator("#view button").all_inner_texts()


@in_browser
def test_each_role_is_offered_what_it_may_do(visitor: BrowserContext, site: ConsoleSite) -> None:
    """A viewer reads; a moderator decides; an admin gives roles too, and reads the server keys."""
    site.flag("Ann")
    site.hold("Ann", "race-1")
    user = f"users/{site.users['Ann'].user}"
    both = ["Approve", "Revoke"]
    decisions = ["Ban", "Shadow ban", "Add a note"]
    offered = {
        "Vic": ([], [], []),
        "Mia": (decisions + ["Reverse"] * 3, both, ["Approve", "Refuse"]),
        "Adam": ([*decisions, "Change the role", *["Reverse"] * 3], both, ["Approve", "Refuse"]),
    }
    for name, expected in offered.items():
        page = site.open(visitor, name)
        errors = collect_errors(page)
        views = page.get_by_role("navigation").get_by_role("link").all_inner_texts()
        assert views == ["Users", "Flags", "Held actions", *(["Server keys"] if name == "Adam" else []), "Log"]
        for place, names in zip((user, "flags", "held"), expected, strict=True):
            go(page, site, place)
            assert buttons(page) == names
        if name != "Adam":
            page.goto(f"{site.url}#/keys")
            expect(page.get_by_role("alert")).to_have_text("This needs the role admin.")
        assert errors == []
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("button", name="Log in")).to_be_visible()
        page.close()


@in_browser
def test_a_user_is_found_and_read_by_links_and_the_back_button(visitor: BrowserContext, site: ConsoleSite) -> None:
    page = site.open(visitor, "Vic")
    page.get_by_role("searchbox").fill("an")
    page.keyboard.press("Enter")
    expect(page.locator("#view tbody tr")).to_have_count(1)
    assert page.url.endswith("#/users?query=an")
    page.get_by_role("link", name="Ann").click()
    expect(page.get_by_role("heading", name="Ann")).to_be_focused()
    expect(page).to_have_title("Ann · Console · Scoreboard")
    expect(page.locator("svg circle")).to_have_count(3)
    expect(page.get_by_role("img")).to_have_accessible_name(
        "3 actions, 0 reversed, 0 held. Score from 50 to 150.",
    )
    expect(page.locator("#view tbody tr")).to_have_count(3)
    page.go_back()
    expect(page.get_by_role("searchbox")).to_have_value("an")
    page.reload()
    expect(page.locator("#view tbody tr")).to_have_count(1)
    ann = (site.users["Ann"].user, 1)
    for query, rows in (("nobody", 0), ann, ("%", 0), ann, ("'; --", 0)):  # in turn: each waits for its own answer
        page.get_by_role("searchbox").fill(query)
        page.get_by_role("button", name="Find").click()
        expect(page.get_by_text("Nobody is found.")).to_have_count(1 - rows)
        expect(page.locator("#view tbody tr")).to_have_count(rows)
    page.goto(f"{site.url}#/users/00000000-0000-0000-0000-000000000000")
    expect(page.get_by_role("alert")).to_have_text("There is no such user.")


@in_browser
def test_decisions_about_a_user_end_in_the_database(visitor: BrowserContext, site: ConsoleSite) -> None:
    """Each with its audit event; without a reason nothing is sent, and Escape ends the dialog."""
    user = site.users["Ann"].user
    page = site.open(visitor, "Adam", f"users/{user}")
    page.get_by_role("button", name="Ban", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Ban").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_have_text("Please give a reason.")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert site.query("SELECT 1 FROM bans") == []

    page.get_by_role("button", name="Ban", exact=True).click()
    page.get_by_label("The user may read the reason").check()
    confirm(page, "Ban", "a bot")
    notice(page, "Ann is banned.")
    expect(page.get_by_role("heading", name="Ann")).to_be_focused()
    assert site.query("SELECT kind, reason, is_reason_shown FROM bans") == [(2, "a bot", True)]
    page.get_by_role("button", name="Lift the ban").click()
    confirm(page, "Lift the ban", "no bot")
    notice(page, "The ban of Ann is lifted.")
    page.get_by_role("button", name="Shadow ban").click()
    confirm(page, "Shadow ban", "still a bot")
    notice(page, "Ann has a shadow ban.")
    page.get_by_role("button", name="Lift the ban").click()
    confirm(page, "Lift the ban", "no bot")
    notice(page, "The ban of Ann is lifted.")

    page.get_by_role("button", name="Reverse level-1").click()
    confirm(page, "Reverse", "too fast")
    notice(page, "The action is reversed.")
    expect(page.locator("svg .reversed")).to_have_count(1)
    assert site.query("SELECT action_id, reason FROM reversals") == [("level-1", "too fast")]
    assert site.query("SELECT total_score FROM scores WHERE user_id = $1", user) == [(100,)]
    page.get_by_role("button", name="Undo the reversal of level-1").click()
    confirm(page, "Undo the reversal", "a fast player")
    notice(page, "The action counts again.")
    assert site.query("SELECT total_score FROM scores WHERE user_id = $1", user) == [(150,)]

    page.get_by_role("button", name="Add a note").click()
    confirm(page, "Add the note", "Asked by mail.")
    notice(page, "The note is added.")
    expect(page.get_by_text("Asked by mail.; by Adam")).to_be_visible()
    page.get_by_label("Role", exact=True).select_option("viewer")
    page.get_by_role("button", name="Change the role").click()
    confirm(page, "Change the role")
    notice(page, "The role of Ann is viewer.")
    assert site.query("SELECT role FROM users WHERE id = $1", user) == [("viewer",)]
    kinds = [
        *("user_banned", "ban_lifted", "note_added", "user_banned", "ban_lifted", "note_added"),
        *("action_reversed", "reversal_undone", "note_added", "note_added", "role_changed"),
    ]
    assert site.events() == [(kind, "Adam") for kind in kinds]
    assert site.query("SELECT note FROM user_notes ORDER BY id") == [
        ("Why the ban was lifted: no bot",),
        ("Why the ban was lifted: no bot",),
        ("Why level-1 counts again: a fast player",),
        ("Asked by mail.",),
    ]
    page.get_by_role("link", name="Log", exact=True).last.click()
    expect(page.locator("#view tbody tr")).to_have_count(len(kinds))
    page.get_by_label("What").select_option("note_added")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#view tbody tr")).to_have_count(4)
    expect(page.locator("#view tbody tr").first).to_contain_text("note added")


@in_browser
def test_the_second_moderator_is_told_what_was_decided(visitor: BrowserContext, site: ConsoleSite) -> None:
    """By whom, and the list is read again. Only the first decision is in the log."""
    flag, held = site.flag("Ann"), site.hold("Ann", "race-1")
    other = visitor.browser
    assert other is not None
    elsewhere = other.new_context()
    elsewhere.set_default_timeout(PAGE_TIMEOUT_MS)
    mia, max_ = site.open(visitor, "Mia", "flags"), site.open(elsewhere, "Max", "flags")
    for page in (mia, max_):
        page.get_by_role("button", name="Revoke").click()
    confirm(mia, "Revoke", "a bot")
    notice(mia, "The flag of Ann is revoked.")
    confirm(max_, "Revoke", "a human")
    notice(max_, "This flag was decided already: revoked, by Mia at ")
    expect(max_.get_by_text("No flags.")).to_be_visible()
    max_.get_by_role("link", name="revoked").click()
    expect(max_.locator(f"[data-flag='{flag}']")).to_contain_text("revoked by Mia")
    assert site.query("SELECT state, reason FROM flags") == [("revoked", "a bot")]

    for page in (mia, max_):
        go(page, site, "held")
        page.get_by_role("button", name="Approve" if page is mia else "Refuse").click()
    confirm(max_, "Refuse", "too fast")
    notice(max_, "The action of Ann is refused.")
    confirm(mia, "Approve", "fine")
    notice(mia, "This action was decided already: refused, by Max at ")
    expect(mia.get_by_text("Nothing waits.")).to_be_visible()
    assert site.query("SELECT id, status, reason FROM held_actions") == [(held, "refused", "too fast")]
    assert site.events() == [("flag_decided", "Mia"), ("held_refused", "Max")]
    elsewhere.close()


@in_browser
def test_a_held_action_is_approved_after_its_evidence_was_read(visitor: BrowserContext, site: ConsoleSite) -> None:
    """The evidence is saved as a file, byte for byte."""
    number = site.hold("Ann", "race-1", evidence=EVIDENCE)
    page = site.open(visitor, "Mia", "held")
    with page.expect_download() as saving:
        page.get_by_role("button", name="Download the evidence").click()
    assert saving.value.suggested_filename == f"evidence-{number}.bin"
    assert Path(saving.value.path()).read_bytes() == EVIDENCE
    page.get_by_role("button", name="Approve").click()
    confirm(page, "Approve", "seen")
    notice(page, "The action of Ann counts.")
    assert site.query("SELECT status FROM held_actions") == [("approved",)]
    assert site.query("SELECT total_score FROM scores WHERE user_id = $1", site.users["Ann"].user) == [(155,)]
    assert site.events() == [("held_approved", "Mia")]


@in_browser
def test_without_a_role_the_console_shows_nothing(visitor: BrowserContext, site: ConsoleSite) -> None:
    """A plain page says so; with a role that was given meanwhile, "Try again" goes on. A wrong password is told."""
    page = visitor.new_page()
    page.goto(f"{site.url}#/flags")
    page.get_by_label("User name or e-mail").fill("Ann")
    page.get_by_label("Password").fill("another password")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).not_to_be_empty()
    log_in(page, "Ann")
    expect(page.get_by_role("heading", name="You have no role here")).to_be_visible()
    expect(page.get_by_role("navigation")).to_be_hidden()
    expect(page.locator("#view")).to_be_hidden()
    site.set_role("Ann", "viewer")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("heading", name="Flags")).to_be_visible()


@in_browser
def test_a_server_that_does_not_answer_is_not_a_missing_role(visitor: BrowserContext, site: ConsoleSite) -> None:
    """The page says what is wrong, and goes on by "Try again"; a view that can't be read says so too."""
    page = site.open(visitor, "Vic")
    expect(page.get_by_role("heading", name="Users")).to_be_visible()
    page.route("**/api/v1/admin/**", lambda route: route.abort())
    page.get_by_role("link", name="Log").click()
    expect(page.get_by_role("alert")).to_have_text("The server does not answer.")
    page.reload()
    notice(page, "The server does not answer.")
    expect(page.get_by_text("You have no role here")).to_be_hidden()
    page.unroute("**/api/v1/admin/**")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("heading", name="Log")).to_be_visible()
    expect(page.locator("#notice")).to_be_empty()


@in_browser
def test_a_role_that_is_taken_while_the_page_is_open_ends_it(visitor: BrowserContext, site: ConsoleSite) -> None:
    """At the next request, also in the middle of a decision, which does not take place. A smaller role leaves less."""
    user = site.users["Ann"].user
    page = site.open(visitor, "Adam", f"users/{user}")
    site.set_role("Adam", "viewer")
    page.get_by_role("button", name="Ban", exact=True).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason", exact=True).fill("a bot")
    dialog.get_by_role("button", name="Ban").click()
    expect(dialog.get_by_role("alert")).to_have_text("This needs the role moderator.")
    dialog.get_by_role("button", name="Cancel").click()
    notice(page, "Your role is viewer now.")
    expect(page.get_by_role("link", name="Server keys")).to_have_count(0)
    expect(page.get_by_role("button", name="Ban", exact=True)).to_have_count(0)
    site.set_role("Adam", None)
    page.get_by_role("link", name="Held actions").click()
    expect(page.get_by_role("heading", name="You have no role here")).to_be_visible()
    expect(page.locator("#view")).to_be_empty()
    assert site.query("SELECT 1 FROM bans") == []
    assert site.events() == []


@in_browser
def test_every_action_can_be_reversed(visitor: BrowserContext, site: ConsoleSite) -> None:
    """Also one whose id, which a cheat chose, means something in a path."""
    ids = ["..", "a/b", "~a", "é?#%2F", MARKUP]
    for action_id in ids:
        site.users["Ann"].act(action_id)
    page = site.open(visitor, "Mia", f"users/{site.users['Ann'].user}")
    for number, action_id in enumerate(ids, 1):
        page.get_by_role("button", name=f"Reverse {action_id}", exact=True).click()
        confirm(page, "Reverse", "a cheat")
        expect(page.locator("svg .reversed")).to_have_count(number)
    assert site.query("SELECT action_id FROM reversals ORDER BY id") == [(action_id,) for action_id in ids]


@in_browser
def test_a_session_that_is_ended_elsewhere_shows_the_form(visitor: BrowserContext, site: ConsoleSite) -> None:
    """And nothing of before. A log-in as another user goes on at the same place, with what that user may do."""
    user = site.users["Ann"].user
    page = site.open(visitor, "Adam", f"users/{user}")
    expect(page.get_by_role("button", name="Change the role")).to_be_visible()
    site.users["Adam"].end_sessions()
    page.get_by_role("button", name="Shadow ban").click()
    page.get_by_role("dialog").get_by_label("Reason", exact=True).fill("a bot")
    page.get_by_role("dialog").get_by_role("button", name="Shadow ban").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("alert")).to_have_text("Your session has ended. Please log in again.")
    expect(page.locator("#view")).to_be_empty()
    assert site.query("SELECT 1 FROM bans") == []
    log_in(page, "Mia")
    expect(page.get_by_role("button", name="Shadow ban")).to_be_visible()
    expect(page.get_by_role("button", name="Change the role")).to_have_count(0)


@in_browser
def test_an_admin_is_decided_about_by_admins_alone(visitor: BrowserContext, site: ConsoleSite) -> None:
    """No button is offered to others, or about oneself."""
    page = site.open(visitor, "Mia")
    for name in ("Adam", "Mia"):
        go(page, site, f"users/{site.users[name].user}")
        assert buttons(page) == []


@in_browser
def test_markup_of_strangers_is_text(visitor: BrowserContext, site: ConsoleSite) -> None:
    """Names, reasons, notes, metadata and what the address says become no elements, in no view."""
    site.add(MARKUP)
    user = site.users[MARKUP].user
    site.flag(MARKUP)
    site.hold(MARKUP, "<b>race</b>")
    page = site.open(visitor, "Adam", f"users/{user}")
    errors = collect_errors(page)
    page.get_by_role("button", name="Add a note").click()
    confirm(page, "Add the note", MARKUP)
    page.get_by_role("button", name="Ban", exact=True).click()
    confirm(page, "Ban", MARKUP)
    site.query("UPDATE users SET username = $1 WHERE username = 'Adam'", f"A{MARKUP}")
    for place in (f"users/{user}", "users", "flags", "held", "log", f"users?query={MARKUP}"):
        go(page, site, place)
        if place != "log":
            expect(page.locator("#view").get_by_text(MARKUP).first).to_be_visible()
        assert page.locator("#content img, #content b:text('race')").count() == 0
    for place in (
        f"users/{MARKUP}",
        f"log?kind={MARKUP}",
        f"log?subject={MARKUP}",
        f"{MARKUP}",
        "constructor",
        "__proto__",
    ):
        page.goto(f"{site.url}#/{place}")
        expect(page.locator("#view h2")).to_be_visible()
        assert page.locator("#content img").count() == 0
    assert [error for error in errors if "400" not in error and "404" not in error] == []


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_any_view(visitor: BrowserContext, site: ConsoleSite, scheme: str) -> None:
    """On a phone and on a desktop: log-in, no role, each view, the dialog. And nothing is wider than the screen."""
    site.flag("Ann")
    site.hold("Ann", "race-" + "1" * 90, evidence=EVIDENCE)
    assert visitor.browser is not None
    context = visitor.browser.new_context(
        color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce", bypass_csp=True
    )
    context.set_default_timeout(PAGE_TIMEOUT_MS)
    page = context.new_page()
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(site.url)
    expect(page.get_by_role("button", name="Log in")).to_be_visible()
    found = objections(page)
    log_in(page, "Adam")
    user = f"users/{site.users['Ann'].user}"
    for place in (user, "users", "flags", "held", "keys", "log"):
        go(page, site, place)
        for width in (390, 1280):
            page.set_viewport_size({"width": width, "height": 844})
            found += objections(page)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (place, width)
    go(page, site, user)
    page.get_by_role("button", name="Ban", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Ban").click()
    found += objections(page)
    page.keyboard.press("Escape")
    site.set_role("Adam", None)
    page.reload()
    expect(page.get_by_role("heading", name="You have no role here")).to_be_visible()
    found += objections(page)
    context.close()
    assert not found, "\n".join(found)


@in_browser
def test_the_console_works_with_the_keyboard_alone(visitor: BrowserContext, site: ConsoleSite) -> None:
    """From the log-in to a decision. The focus is never lost, and returns to the heading."""
    site.flag("Ann")
    page = visitor.new_page()
    page.goto(f"{site.url}#/flags")
    expect(page.get_by_role("button", name="Log in")).to_be_visible()
    page.get_by_label("User name or e-mail").focus()
    page.keyboard.type("Mia")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Flags")).to_be_focused()
    approve = page.get_by_role("button", name="Approve")
    for _ in range(10):
        page.keyboard.press("Tab")
        if approve.evaluate("button => button === document.activeElement"):
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_label("Reason", exact=True)).to_be_focused()
    page.keyboard.type("fine")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    notice(page, "The flag of Ann is approved.")
    expect(page.get_by_role("heading", name="Flags")).to_be_focused()
    assert site.events() == [("flag_decided", "Mia")]
