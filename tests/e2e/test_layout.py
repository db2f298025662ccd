"""The board at every width, with scores of 1 to 16 digits and names of 1 to 50 wide letters: on the page, on the stage,
in the element.

The files are the page's own; what the server would send is played in the tab, so that some hundred boards take seconds.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.e2e.browsing import PAGE_TIMEOUT_MS, in_browser
from tests.e2e.fake_board import FakeBoard, entries
from tests.e2e.test_states import SESSION

# CSS pixels: a watch, phones, tablets, laptops, a wall
WIDTHS = (240, 320, 360, 390, 768, 1024, 1280, 1920, 2560, 3840)
HEIGHT = 800
SCREENS = (
    (1920, 1080),
    (1280, 720),
    (1024, 768),
    (3840, 2160),
    (1080, 1920),
    (768, 1024),
    (390, 844),
    (844, 390),
    (240, 600),
)
DIGITS = (1, 4, 5, 7, 10, 13, 16)
NAMES = (
    *(
        "W" * 50,
        "漢" * 50,
        "عربي" * 12,
        "W",
        "Wolfeschlegelsteinhausen",
        "MWMWMWMWMWMW",
        "W W W W W W W W W",
        "漢字",
        "ab",
        "😀" * 25,
    ),
    *("TurboTurtle", "W" * 50, "漢" * 50, "م", "W" * 20, "i" * 50, "عربي" * 12, "W" * 12, "漢" * 12, "W" * 49 + "!"),
)
WIDE_LETTERS = 4  # of a name, with the sign that it goes on, are always seen

# Draws each board and measures each row of it; returns what is wrong, in words.
WALK = """([boards, wide]) => {
  const root = document.querySelector('live-scoreboard')?.shadowRoot ?? document;
  const text = (element) => {
    const range = document.createRange();
    range.selectNodeContents(element);
    return range.getBoundingClientRect();
  };
  const apart = (a, b) =>
    a.right <= b.left + 1 || b.right <= a.left + 1 || a.bottom <= b.top + 1 || b.bottom <= a.top + 1;
  const wrong = [];
  for (const board of boards) {
    server.draw(board);
    const say = (words) => wrong.push(`${innerWidth} × ${innerHeight}, ${board[0].score}: ${words}`);
    const width = document.documentElement.scrollWidth;
    if (width > innerWidth) say('the document is ' + width + ' wide');
    for (const row of root.querySelectorAll('#board tr, li')) {
      const cells = row.cells;
      const name = row.querySelector('bdi');
      const score = cells ? cells[3] : row.querySelector('data');
      const face = row.querySelector('i').getBoundingClientRect();
      const mark = cells?.[2].firstElementChild;
      const rank = text(cells ? cells[0] : row.querySelector('b'));
      const parts = { rank, name: name.getBoundingClientRect(), score: text(score) };
      if (face.width) parts.face = face;
      if (mark) parts.mark = mark.getBoundingClientRect();
      const box = row.getBoundingClientRect();
      for (const [what, part] of Object.entries(parts)) {
        const its = `${what} of ${name.textContent}`;
        if (part.left < box.left - 1 || part.right > box.right + 1) say(its + ' leaves its row sideways');
        if (part.top < box.top - 1 || part.bottom > box.bottom + 1) say(its + ' leaves its row upwards or downwards');
        for (const other in parts) if (other > what && !apart(part, parts[other])) say(`${its} lies over the ${other}`);
      }
      const cut = name.scrollWidth > name.clientWidth;
      const letters = [...name.textContent].length;
      if (cut && name.clientWidth < (wide * name.scrollWidth) / letters)
        say(`too little of ${name.textContent} is seen`);
      const offered = name.title === name.textContent && name.tabIndex === 0;
      if (cut !== offered) say(`${name.textContent} can't be had whole, or offers itself`);
    }
  }
  return wrong;
}"""


def boards() -> list[list[dict[str, Any]]]:
    made = []
    for digits in DIGITS:
        top = int("98" * 8) // 10 ** (16 - digits)
        for first in (0, 10):
            names = NAMES[first : first + 10]
            made.append(entries([(name, max(1, top - place * max(1, top // 10))) for place, name in enumerate(names)]))
    return made


@pytest.fixture(scope="module")
def still(browser: Browser) -> Iterator[BrowserContext]:
    """A visitor to whom nothing moves: what is drawn can be measured at once."""
    context = browser.new_context(reduced_motion="reduce")
    context.set_default_timeout(PAGE_TIMEOUT_MS)
    yield context
    context.close()


@pytest.fixture
def page(still: BrowserContext) -> Iterator[Page]:
    page = still.new_page()
    yield page
    page.close()


@in_browser
@pytest.mark.parametrize("path", ["/", "/?stage", "/embed"])
def test_nothing_is_cut_but_a_long_names_end(still: BrowserContext, page: Page, path: str) -> None:
    """No score is clipped, nothing overlaps or sticks out, and of each name enough is seen; what is cut can be had
    whole."""
    FakeBoard(still, [("Ada", 10)]).open(page, path)
    wrong = []
    for width, height in SCREENS if path == "/?stage" else [(width, HEIGHT) for width in WIDTHS]:
        page.set_viewport_size({"width": width, "height": height})
        wrong += page.evaluate(WALK, [boards(), WIDE_LETTERS])
    assert not wrong, "\n".join(wrong[:40])


@in_browser
@pytest.mark.parametrize("locale", ["en-IN", "bn-BD", "my-MM"])
@pytest.mark.parametrize("path", ["/", "/?stage", "/embed"])
def test_every_language_groups_numbers_in_its_way(browser: Browser, locale: str, path: str) -> None:
    """By two digits in India, with figures of its own in Bangladesh and Myanmar: their scores fit as ours do, inside
    the row's padding."""
    context = browser.new_context(reduced_motion="reduce", locale=locale)
    page = FakeBoard(context, [("Ada", 10)]).open(context.new_page(), path)
    wrong = []
    for width, height in ((1024, 768), (390, 844), (240, 600)):
        page.set_viewport_size({"width": width, "height": height})
        made = [
            [{**row, "userId": f"{row['userId']}-{number}"} for row in board]
            for number, board in enumerate(boards()[-6:])
        ]
        wrong += page.evaluate(WALK, [made, WIDE_LETTERS])
        overflowing = "(score) => score.scrollWidth > score.clientWidth + 1"
        wrong += [f"{width}: score"] * sum(
            score.evaluate(overflowing) for score in page.locator("#board td:nth-child(4)").all()
        )
    assert not wrong, "\n".join(wrong[:40])
    context.close()


TOP = "document.querySelector('#board, live-scoreboard p').getBoundingClientRect().top"
HEIGHT_OF_ALL = "document.querySelector('main').getBoundingClientRect().bottom"
REFUSE = """() => {
  Math.random = () => 0.99;
  for (const socket of server.open) {
    const data = { code: 'TOO_MANY_CONNECTIONS', message: 'Too many connections from this address.', layer: 'ip' };
    socket.onmessage({ data: JSON.stringify({ event: 'error', data }) });
    socket.onclose({ code: 1013, reason: 'too many connections; reconnect' });
  }
}"""


@in_browser
@pytest.mark.parametrize("path", ["/", "/?stage", "/embed"])
def test_the_board_does_not_jump(still: BrowserContext, page: Page, path: str) -> None:
    """Whatever the state says: how many watch, a date, why it is not live and a button. The dot stands beside its first
    word."""
    fake = FakeBoard(still, [("SwiftSparrow", 1234), ("Ada", 900)])
    where = TOP if path != "/embed" else HEIGHT_OF_ALL
    for width in (240, 320, 360, 390, 500, 640, 768, 820, 960, 1024, 1280):
        page.set_viewport_size({"width": width, "height": HEIGHT})
        fake.open(page, path)
        line = page.locator("#state, live-scoreboard p")
        expect(line).to_contain_text("Live")
        tops = [page.evaluate(where)]
        page.evaluate("server.sendEvent('viewers', { count: 12345 })")
        expect(line).to_contain_text("12,345 watching" if width >= 320 or path != "/embed" else "Live")
        tops.append(page.evaluate(where))
        page.evaluate(REFUSE)
        expect(line).to_contain_text("Not live: too many viewers from your network. Next try in")
        expect(page.get_by_role("button", name="Try now")).to_be_visible()
        tops.append(page.evaluate(where))
        dot, button = line.locator("b").bounding_box(), page.get_by_role("button", name="Try now").bounding_box()
        word = line.locator("b + span").evaluate(
            "(words) => [...words.getClientRects()].map(({ top, bottom }) => [top, bottom])[0]"
        )
        assert dot is not None
        assert button is not None
        assert button["height"] >= 44
        assert word[0] <= dot["y"] + dot["height"] / 2 <= word[1], (width, dot, word)
        if path == "/":
            page.route("**/static/page.js", lambda route: route.abort())
            page.reload(wait_until="load")
            tops.append(page.evaluate(where))  # as the server has sent it
            page.unroute("**/static/page.js")
        assert max(tops) - min(tops) < 0.5, (width, tops)


@in_browser
def test_all_scores_stand_beside_their_names_or_none(still: BrowserContext, page: Page) -> None:
    """At every width and length, all but the leader's, which is the largest; and all of them end at the same edge."""
    FakeBoard(still, [("Ada", 10)]).open(page)
    look = """(boards) => boards.flatMap((board) => {
      server.draw(board);
      const rows = [...document.querySelectorAll('#board tr')];
      const box = (cell) => cell.getBoundingClientRect();
      const below = rows.slice(1).map(({ cells }) => box(cells[3]).top >= box(cells[1]).bottom - 1);
      const ends = rows.map(({ cells: [, , , score] }) => {
        const range = document.createRange();
        range.selectNodeContents(score);
        return Math.round(range.getBoundingClientRect().right);
      });
      const isUneven = new Set(below).size > 1 || Math.max(...ends) - Math.min(...ends) > 1;
      return isUneven ? [[innerWidth, board[0].score, below, ends]] : [];
    })"""
    wrong = []
    for width in (*range(240, 700, 20), 960, 1000, 1024, 1060, 1100, 1280):
        page.set_viewport_size({"width": width, "height": HEIGHT})
        wrong += page.evaluate(look, boards()[::2])
    assert not wrong, wrong[:5]


@in_browser
def test_ten_rows_fit_on_a_small_laptop(still: BrowserContext, page: Page) -> None:
    """At 1024 × 768 the whole board is seen without scrolling."""
    page.set_viewport_size({"width": 1024, "height": 768})
    FakeBoard(still, [(f"Player {place}", 1000 - place) for place in range(10)]).open(page)
    expect(page.locator("#board tr").last).to_be_in_viewport(ratio=1)


@in_browser
@pytest.mark.parametrize(("width", "height"), [(360, 640), (844, 390)])
def test_a_small_stage_can_be_read(still: BrowserContext, page: Page, width: int, height: int) -> None:
    """On a phone, however long the scores are: initials inside their faces, ranks of twelve pixels at least."""
    page.set_viewport_size({"width": width, "height": height})
    FakeBoard(still, [("Ada", 10)]).open(page, "/?stage")
    for board in (boards()[0], boards()[-2]):
        page.evaluate(
            "(rows) => server.draw(rows.map((row) => ({ ...row, username: 'Mighty Walrus ' + row.rank })))", board
        )
        cut = page.evaluate(
            """() => [...document.querySelectorAll('#board tr')].filter((row) => {
              const face = row.querySelector('i');
              const range = document.createRange();
              range.selectNodeContents(face);
              const [text, box] = [range.getBoundingClientRect(), face.getBoundingClientRect()];
              const rank = parseFloat(getComputedStyle(row.cells[0]).fontSize);
              return text.left < box.left || text.right > box.right
                || text.top < box.top || text.bottom > box.bottom || rank < 12;
            }).length"""
        )
        assert cut == 0


@in_browser
def test_what_is_mine_fits(still: BrowserContext, page: Page) -> None:
    """My name, score and buttons, the password form, and my row under the board: at no width does anything stick
    out."""
    fake = FakeBoard(still, [(NAMES[0], 9_898_989_898_989_898), ("Ada", 9_000_000_000_000_000)])
    session = {"success": True, "data": {**SESSION, "userId": "user-44", "username": "W" * 50}}
    standing = {"userId": "user-44", "username": "W" * 50, "score": 1_111_111_111_111_111, "rank": 44_444}
    fake.api["/auth/refresh"] = (200, session)
    fake.api["/scores/leaderboard"] = (200, {"success": True, "data": {"leaderboard": [], "currentUser": standing}})
    page.add_init_script("localStorage['scoreboard:user'] = 'user-44'")
    fake.open(page)
    expect(page.locator("#score")).to_have_text("1,111,111,111,111,111")
    page.get_by_text("Change password").first.click()
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": HEIGHT})
        sticking = page.evaluate(
            """() => [...document.querySelectorAll('header *, aside, aside *, #mine *')].filter((part) => {
              const { left, right } = part.getBoundingClientRect();
              const isText = part.matches('dd, button, p, b');
              const isCut = isText && part.clientWidth && part.scrollWidth > part.clientWidth + 1;
              return left < 0 || right > innerWidth || isCut;
            }).map((part) => part.outerHTML.slice(0, 99))"""
        )
        assert (width, sticking, page.evaluate("document.documentElement.scrollWidth")) == (width, [], width)


@in_browser
def test_the_champions_name_is_whole(still: BrowserContext, page: Page) -> None:
    """Usual names of twelve letters stand whole beside four digits: on a phone, a small laptop and a screen on its
    side."""
    fake = FakeBoard(still, [("SwiftSparrow", 1234), ("TurboTurtle", 1200), ("RocketRacoon", 1100)])
    for path, width, height in (
        ("/", 390, 844),
        ("/", 1024, 768),
        ("/", 1280, 800),
        ("/?stage", 1080, 1920),
        ("/?stage", 1920, 1080),
    ):
        page.set_viewport_size({"width": width, "height": height})
        fake.open(page, path)
        assert page.locator("bdi[title]").count() == 0, (path, width)


@in_browser
def test_a_cut_name_is_had_whole_by_keyboard_and_touch(still: BrowserContext, page: Page) -> None:
    """A cut name can be focused, by key or by a tap, and stands whole as long as it is."""
    name = "Wolfeschlegelsteinhausenbergerdorff the Seventh"
    page.set_viewport_size({"width": 360, "height": HEIGHT})
    FakeBoard(still, [("Ada", 9_000_000), (name, 1_234_567)]).open(page)
    long = page.locator("#board bdi", has_text="Wolfe")
    expect(long).to_have_attribute("title", name)
    long.click()
    expect(long).to_be_focused()
    assert long.evaluate("(name) => name.scrollWidth <= name.clientWidth && name.scrollHeight <= name.clientHeight + 1")
    page.keyboard.press("Shift+Tab")
    expect(long).not_to_be_focused()
    page.keyboard.press("Tab")
    expect(long).to_be_focused()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
