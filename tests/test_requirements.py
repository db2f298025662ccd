"""config/requirements: what is installed is pinned, by version and by hash, and is what pyproject.toml asks for."""

import re
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "config/requirements"
SETS = ("server", "embedded", "dev", "bench")  # each begins with the one before it
PIN = re.compile(
    r"^([A-Za-z0-9._-]+)==([^\s;]+)(?: ; [^\\]+)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def pins(name: str) -> dict[str, str]:
    """Canonical name → version of each requirement of one file, without those of the file that it begins with."""
    return {canonicalize_name(found[1]): found[2] for found in PIN.finditer((FOLDER / f"{name}.txt").read_text())}


def all_pins(name: str) -> dict[str, str]:
    """The same with all files that it begins with."""
    if name not in SETS:
        return pins(name)
    return {key: version for part in SETS[: SETS.index(name) + 1] for key, version in pins(part).items()}


def wanted(name: str) -> list[Requirement]:
    """What pyproject.toml asks for in that set, ours aside."""
    if name == "build":
        texts = PROJECT["build-system"]["requires"]
    else:
        extras = PROJECT["project"]["optional-dependencies"]
        texts = [*PROJECT["project"]["dependencies"], *extras["server"], *(extras[name] if name != "server" else ())]
    return [one for text in texts if (one := Requirement(text)).name != PROJECT["project"]["name"]]


@pytest.mark.parametrize("name", ["build", *SETS])
def test_each_line_is_a_pin_with_its_hashes(name: str) -> None:
    """Nothing else is in a file, so nothing is installed without a comparison."""
    rest = PIN.sub("", (FOLDER / f"{name}.txt").read_text()).split("\n")
    above = {after: before for before, after in pairwise(SETS)}
    expected = [f"# Made by scripts/pins: {name}", *([f"-r {above[name]}.txt"] if name in above else []), ""]
    assert rest == expected
    assert pins(name)


@pytest.mark.parametrize("name", ["build", *SETS])
def test_what_pyproject_asks_for_is_pinned_and_allowed(name: str) -> None:
    found = all_pins(name)
    missing = [
        str(requirement)
        for requirement in wanted(name)
        if not requirement.specifier.contains(found.get(canonicalize_name(requirement.name), "0"))
    ]
    assert missing == [], "run scripts/pins"


def test_no_package_has_two_versions_and_no_index_is_named() -> None:
    known: dict[str, str] = {}
    for name in ("build", *SETS):
        for key, version in pins(name).items():
            assert known.setdefault(key, version) == version, key
        assert "://" not in (FOLDER / f"{name}.txt").read_text()
