"""The documents agree with the tree: links lead somewhere, files that are named are there, numbers stand in them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from scoreboard.cli.main import cli
from scoreboard.settings.model import Settings

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / ".github").rglob("*.md")])
MAX_COLUMNS = 120

LINK = re.compile(r"\]\(([^)\s]+)\)")
# A file in backticks: with a folder before it, and an ending that code has.
NAMED_FILE = re.compile(r"`(\w[\w.-]*/[\w./-]+\.(?:py|lua|sql|js|toml|yml|md|html))`")
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def prose(text: str) -> str:
    """A document without its blocks of code."""
    return re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows(text: str, heading: str) -> Iterator[list[str]]:
    """The cells of each row of the table below a heading."""
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    table = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    yield from ([cell.strip() for cell in cells] for cells in table[2:])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """Every link to a file of the repository finds it, and every anchor its heading."""
    broken = []
    for link in LINK.findall(prose(document.read_text())):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_files_are_there(document: Path) -> None:
    """Every file that a document names is in the repository, as seen from its root or from the package."""
    named = NAMED_FILE.findall(document.read_text())
    assert [name for name in named if not any((ROOT / base / name).exists() for base in ("", "scoreboard"))] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_lines_are_short(document: Path) -> None:
    """No line is longer than a terminal is wide."""
    assert [line for line in document.read_text().splitlines() if len(line) > MAX_COLUMNS] == []


@pytest.mark.parametrize(("heading", "value", "place"), [("Bounds of every buffer", 1, 2), ("Deadlines", 1, 2)])
def test_bounds_stand_in_the_code(heading: str, value: int, place: int) -> None:
    """Each number of the table is found in the file that the row names."""
    missing = []
    for row in rows((ROOT / ".github/ARCHITECTURE.md").read_text(), heading):
        code = (ROOT / "scoreboard" / row[place].strip("`")).read_text().replace("_", "")
        for number in NUMBER.findall(row[value]):
            plain = number.replace(",", "")
            if not re.search(rf"(?<![\d.]){re.escape(plain)}(?:\.0)?(?![\d.]*\d)", code):
                missing.append((row[0], number))
    assert missing == []


def test_the_readme_names_every_command() -> None:
    """The commands that README lists are those that there are."""
    groups = "|".join(f"{name} " for name, command in cli.commands.items() if isinstance(command, click.Group))
    pattern = rf"^scoreboard ((?:{groups})?[a-z-]+)"
    listed = set(re.findall(pattern, (ROOT / "README.md").read_text(), re.MULTILINE))
    there = set()
    for name, command in cli.commands.items():
        group = command.commands if isinstance(command, click.Group) else None
        there |= {f"{name} {inner}" for inner in group} if group else {name}
    assert listed == there


def test_the_readmes_settings_exist() -> None:
    """Each setting that a table of README names is one, with this default where it is a plain value."""
    defaults = Settings().model_dump(mode="json")
    for names, default, _ in rows((ROOT / "README.md").read_text(), "Configuration"):
        settings = [name.split(".") for name in re.findall(r"`([^`]+)`", names)]
        values = [defaults[first][rest[0]] if rest else defaults[first] for first, *rest in settings]
        if re.fullmatch(r"[\d., ]+|true|false", default):
            assert [json.loads(each) for each in default.split(", ")] == values, names
