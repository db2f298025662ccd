"""Skeletons of user names: names with a common skeleton look alike, or differ in case only. Pure.

By Unicode's UTS #39, section 4: each character is replaced by the prototype of those that look like it ("1", "I" and
"l" become "l", "m" becomes "rn"). Case is ignored too, since log-in ignores it. The capital I is ambiguous: it looks
like "l", but people read it as "i". So a name has a skeleton for each way to read it:

1. as it is shown: "Ian" and "lan" are one, "BiII" and "Bill" too;
2. with each capital I as "i": "ВILL" with a Cyrillic В is "bill";
3. with a capital I as "i" at the beginning of a word alone: "IIya" is "ilya";
4. of its folded case: "ΣΊΣΥΦΟΣ" and "σίσυφος" are one.

For most names all four are equal, and "Mail" and "Mall" have different ones. `storage.postgres.users` gives each
skeleton to one user only. scripts/confusables makes the data.
"""

import re
from functools import cache
from importlib.resources import files

import unicodedata2 as unicodedata  # of Unicode 17, as the data: Python 3.11's own is of 2021, and nodes must agree

# characters; what follows is cut off: some letters become eighteen, and an index takes at most 2,700 bytes
MAX_SKELETON_LENGTH = 255
MAX_FOLDING_STEPS = 8  # two are usual; a bound, since folding is repeated until nothing changes

_DOTLESS_J = {ord("\N{LATIN SMALL LETTER DOTLESS J}"): "j"}  # UTS #39 has it apart from "j"
_SECOND_DOT = re.compile("(?<=[ij])\N{COMBINING DOT ABOVE}+")  # it covers the letter's own dot, so it is invisible
_SPACES = re.compile(" {2,}")  # a page shows one
_FIRST_CAPITAL_I = re.compile(r"(?<!\w)I")

# The first rule also made "i" and "l" equal, because "I" looks like "l".
_FIRST_RULE = _DOTLESS_J | {ord("i"): "l"}
_SECOND_DOT_OF_FIRST_RULE = re.compile("(?<=[lj])\N{COMBINING DOT ABOVE}+")


@cache
def table() -> dict[int, str | None]:
    """Code point → its prototype; None: the character is invisible. The first call takes about 5 ms, so a node makes it
    before it serves."""
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
    known.update(dict.fromkeys(ignorable))  # last: an invisible character has no prototype
    return known


@cache
def _capital_is() -> dict[int, str]:
    """Characters of any script that look like "l" but are or contain a capital I: "Ⅳ" → "IV"."""
    found = {}
    for code, prototype in table().items():
        if prototype and "l" in prototype:
            plain = unicodedata.normalize("NFKC", chr(code))
            read = _alike(plain.casefold())
            if read != (shown := _alike(prototype.casefold())) and read.replace("i", "l") == shown:
                found[code] = plain if plain.isascii() else prototype.replace("l", "I")
    return found


def is_ignorable(character: str) -> bool:
    """Whether the character is a Default_Ignorable_Code_Point of Unicode: it is invisible."""
    return table().get(ord(character), "") is None


def skeletons(name: str) -> tuple[str, ...]:
    """The skeletons of a name, sorted and without duplicates. Names that look alike, or differ in case only, have one
    in common. () when no character is visible."""
    shown = unicodedata.normalize("NFD", name).translate(_capital_is())
    readings = {shown, shown.replace("I", "i"), _FIRST_CAPITAL_I.sub("i", shown)}
    found = {_settle(_alike(reading)) for reading in readings} | {folded_skeleton(name)}
    return tuple(sorted(found - {""}))


def folded_skeleton(name: str) -> str:
    """The one of `skeletons` that is equal for all names that differ in case only."""
    return _settle(_alike(fold_case(name)))


def fold_case(text: str) -> str:
    """Unicode's full case folding, composed. Texts that differ in case, or in how an accent was typed, become equal."""
    folded = unicodedata.normalize("NFD", text).casefold()
    return str(unicodedata.normalize("NFC", unicodedata.normalize("NFD", folded).casefold()))


def skeleton_of_first_rule(name: str) -> str:
    """The skeleton by the first version of these rules. Databases have such keys until housekeeping has replaced
    them."""
    text = _alike(name)
    for _ in range(MAX_FOLDING_STEPS):
        before, text = text, _alike(unicodedata.normalize("NFKC", text)).casefold().translate(_FIRST_RULE)
        text = _SECOND_DOT_OF_FIRST_RULE.sub("", text)
        if text == before:
            break
    return text[:MAX_SKELETON_LENGTH]


def _settle(text: str) -> str:
    """Folds case and compatibility forms until nothing changes. `_alike` must come first: NFKC turns the long s, which
    looks like "f", into "s"."""
    for _ in range(MAX_FOLDING_STEPS):
        before, text = text, _alike(unicodedata.normalize("NFKC", text)).casefold().translate(_DOTLESS_J)
        text = _SPACES.sub(" ", _SECOND_DOT.sub("", text)).strip(" ")
        if text == before:
            break
    return text[:MAX_SKELETON_LENGTH].rstrip(" ")


def _alike(text: str) -> str:
    """UTS #39's skeleton of a text."""
    return str(unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).translate(table())))
