"""Skeletons of user names: two names with a common skeleton look alike, or differ in case alone.

By Unicode's UTS #39, section 4, each character is replaced by the prototype of all that look like it: "1", "I" and "l"
become "l", "m" becomes "rn". Case is ignored too, since log-in ignores it. The capital I is special: it looks like "l",
but people read it as "i". So a name has a skeleton for each way to read it:

1. as it is shown: "Ian" and "lan" are one, "BiII" and "Bill" too;
2. with each capital I as "i": "ВILL" with a Cyrillic В is "bill";
3. with a capital I as "i" at the beginning of a word alone: "IIya" is "ilya";
4. of its folded case: "ΣΊΣΥΦΟΣ" and "σίσυφος" are one.

Most names have one skeleton for all four, so "Mail" and "Mall" are two names. Pure. In `storage.postgres.users` each
skeleton belongs to one user. The data is made by scripts/confusables.
"""

import re
from functools import cache
from importlib.resources import files

# Of Unicode 17, as the data. Python's own differs by version (3.11 has Unicode 14), and all nodes must agree.
import unicodedata2 as unicodedata

# characters; the rest is cut off. One letter can become eighteen, and an index takes at most 2,700 bytes
MAX_SKELETON_LENGTH = 255
MAX_FOLDING_STEPS = 8  # two are usual; the loop ends when nothing changes

_DOTLESS_J = {ord("\N{LATIN SMALL LETTER DOTLESS J}"): "j"}  # UTS #39 does not treat it as "j"
_SECOND_DOT = re.compile("(?<=[ij])\N{COMBINING DOT ABOVE}+")  # it covers the letter's own dot, so it is invisible
_SPACES = re.compile(" {2,}")  # a page shows several as one
_FIRST_CAPITAL_I = re.compile(r"(?<!\w)I")

# The first rule took "i" and "l" for one, because "I" looks like "l".
_FIRST_RULE = _DOTLESS_J | {ord("i"): "l"}
_SECOND_DOT_OF_FIRST_RULE = re.compile("(?<=[lj])\N{COMBINING DOT ABOVE}+")


@cache
def table() -> dict[int, str | None]:
    """Code point → its prototype; None for an invisible one. Takes 5 ms once, so a node calls it before it serves."""
    known: dict[int, str | None] = {}
    ignorable: list[int] = []
    for line in files("scoreboard.domain").joinpath("confusables.txt").read_text("utf-8").splitlines():
        if line.startswith("#"):
            continue
        prototype, _, characters = line.partition("\t")
        if prototype == "-":
            for first, last in (span.split("-") for span in characters.split()):
                ignorable.extend(range(int(first, 16), int(last, 16) + 1))
            continue
        text = "".join(chr(int(code, 16)) for code in prototype.split())
        known.update((int(code, 16), text) for code in characters.split())
    known.update(dict.fromkeys(ignorable))  # translate() removes them
    return known


@cache
def _capital_is() -> dict[int, str]:
    """Characters that are or contain a capital I of any script and look like "l": code point → text, "Ⅳ" → "IV"."""
    found = {}
    for code, prototype in table().items():
        if prototype and "l" in prototype:
            plain = unicodedata.normalize("NFKC", chr(code))
            read = _alike(plain.casefold())
            if read != (shown := _alike(prototype.casefold())) and read.replace("i", "l") == shown:
                found[code] = plain if plain.isascii() else prototype.replace("l", "I")
    return found


def is_ignorable(character: str) -> bool:
    """Whether it is a Default_Ignorable_Code_Point of Unicode, which is invisible by itself."""
    return table().get(ord(character), "") is None


def skeletons(name: str) -> tuple[str, ...]:
    """All skeletons of a name, sorted, each once. () for an invisible name."""
    shown = unicodedata.normalize("NFD", name).translate(_capital_is())
    readings = {shown, shown.replace("I", "i"), _FIRST_CAPITAL_I.sub("i", shown)}
    found = {_settle(_alike(reading)) for reading in readings} | {folded_skeleton(name)}
    return tuple(sorted(found - {""}))


def folded_skeleton(name: str) -> str:
    """The skeleton, one of `skeletons`, that a name shares with all that differ from it in case alone."""
    return _settle(_alike(fold_case(name)))


def fold_case(text: str) -> str:
    """Unicode's full case folding, composed: the same for texts that differ in case, or in how an accent was typed."""
    folded = unicodedata.normalize("NFD", text).casefold()
    return str(unicodedata.normalize("NFC", unicodedata.normalize("NFD", folded).casefold()))


def skeleton_of_first_rule(name: str) -> str:
    """The skeleton by the rule before `skeletons`. Databases have such keys until housekeeping has replaced them."""
    text = _alike(name)
    for _ in range(MAX_FOLDING_STEPS):
        before, text = text, _alike(unicodedata.normalize("NFKC", text)).casefold().translate(_FIRST_RULE)
        text = _SECOND_DOT_OF_FIRST_RULE.sub("", text)
        if text == before:
            break
    return text[:MAX_SKELETON_LENGTH]


def _settle(text: str) -> str:
    """Folds case and applies NFKC until nothing changes.

    `_alike` comes first: the long s looks like "f", but NFKC makes an "s" of it.
    """
    for _ in range(MAX_FOLDING_STEPS):
        before, text = text, _alike(unicodedata.normalize("NFKC", text)).casefold().translate(_DOTLESS_J)
        text = _SPACES.sub(" ", _SECOND_DOT.sub("", text)).strip(" ")
        if text == before:
            break
    return text[:MAX_SKELETON_LENGTH].rstrip(" ")


def _alike(text: str) -> str:
    """UTS #39's skeleton of a text."""
    return str(unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).translate(table())))
