"""What a user name looks like: names that have a skeleton in common can't be told apart, or are the same name in
another case.

By Unicode's UTS #39, section 4: each character becomes the prototype of those that look like it ("1", "I" and "l" are
"l", "m" is "rn"). Here letters also count in any case, since log-in does not ask for it. The letter with two looks is
the capital I: as it stands it looks like "l", but people read it as "i". So a name has a skeleton for each way to read
it:

1. as it is shown: "Ian" and "lan" are one, "BiII" and "Bill" too;
2. with each capital I as "i": "ВILL" with a Cyrillic В is "bill";
3. with a capital I as "i" at the beginning of a word alone: "IIya" is "ilya";
4. of its folded case: "ΣΊΣΥΦΟΣ" and "σίσυφος" are one.

Most names have one skeleton for all four, so "Mail" and "Mall" are two names. Pure. `storage.postgres.users` keeps each
skeleton with one user; the data is made by scripts/confusables.
"""

import re
from functools import cache
from importlib.resources import files

import unicodedata2 as unicodedata  # of Unicode 17, as the data: Python 3.11's own is of 2021, and nodes must agree

# characters; what follows is cut off: some letters become eighteen, and an index takes at most 2,700 bytes
MAX_SKELETON_LENGTH = 255
MAX_FOLDING_STEPS = 8  # two are usual, and each can only bring a name nearer to its end

_DOTLESS_J = {ord("\N{LATIN SMALL LETTER DOTLESS J}"): "j"}  # UTS #39 has it apart from "j"
_SECOND_DOT = re.compile("(?<=[ij])\N{COMBINING DOT ABOVE}+")  # in the place of the letter's own it looks the same
_SPACES = re.compile(" {2,}")  # a page shows one
_FIRST_CAPITAL_I = re.compile(r"(?<!\w)I")

# What was one by the first rule: "i" and "l", because "I" looks like "l".
_FIRST_RULE = _DOTLESS_J | {ord("i"): "l"}
_SECOND_DOT_OF_FIRST_RULE = re.compile("(?<=[lj])\N{COMBINING DOT ABOVE}+")


@cache
def table() -> dict[int, str | None]:
    """Code point → its prototype; None: it has no look at all. Takes some 5 ms once, so a node asks for it before it
    serves."""
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
    known.update(dict.fromkeys(ignorable))  # they go before anything is looked up
    return known


@cache
def _capital_is() -> dict[int, str]:
    """Characters that look like "l", but are a capital I, alone or among others, of whatever script: "Ⅳ" → "IV"."""
    found = {}
    for code, prototype in table().items():
        if prototype and "l" in prototype:
            plain = unicodedata.normalize("NFKC", chr(code))
            read = _alike(plain.casefold())
            if read != (shown := _alike(prototype.casefold())) and read.replace("i", "l") == shown:
                found[code] = plain if plain.isascii() else prototype.replace("l", "I")
    return found


def is_ignorable(character: str) -> bool:
    """Whether it is one of Unicode's Default_Ignorable_Code_Point: it has no look of its own."""
    return table().get(ord(character), "") is None


def skeletons(name: str) -> tuple[str, ...]:
    """What names that look alike, or are alike in another case, have in common; sorted, each once. () when nothing of
    it can be seen."""
    shown = unicodedata.normalize("NFD", name).translate(_capital_is())
    readings = {shown, shown.replace("I", "i"), _FIRST_CAPITAL_I.sub("i", shown)}
    found = {_settle(_alike(reading)) for reading in readings} | {folded_skeleton(name)}
    return tuple(sorted(found - {""}))


def folded_skeleton(name: str) -> str:
    """The one of `skeletons` that a name has in common with all that differ from it in case alone."""
    return _settle(_alike(fold_case(name)))


def fold_case(text: str) -> str:
    """The same for texts that differ in case, or in how an accent was typed: Unicode's full case folding, composed."""
    folded = unicodedata.normalize("NFD", text).casefold()
    return str(unicodedata.normalize("NFC", unicodedata.normalize("NFD", folded).casefold()))


def skeleton_of_first_rule(name: str) -> str:
    """What `skeletons` was before: keys that were made so are in databases until housekeeping has replaced them."""
    text = _alike(name)
    for _ in range(MAX_FOLDING_STEPS):
        before, text = text, _alike(unicodedata.normalize("NFKC", text)).casefold().translate(_FIRST_RULE)
        text = _SECOND_DOT_OF_FIRST_RULE.sub("", text)
        if text == before:
            break
    return text[:MAX_SKELETON_LENGTH]


def _settle(text: str) -> str:
    """In any case, and in Unicode's compatible form, until nothing changes. That comes after the first look: NFKC makes
    "s" of the long s, which looks like "f"."""
    for _ in range(MAX_FOLDING_STEPS):
        before, text = text, _alike(unicodedata.normalize("NFKC", text)).casefold().translate(_DOTLESS_J)
        text = _SPACES.sub(" ", _SECOND_DOT.sub("", text)).strip(" ")
        if text == before:
            break
    return text[:MAX_SKELETON_LENGTH].rstrip(" ")


def _alike(text: str) -> str:
    """UTS #39's skeleton of a text."""
    return str(unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).translate(table())))
