"""What a user name looks like: names with one skeleton can't be told apart on a board.

By Unicode's UTS #39, section 4: each character becomes the prototype of those that look like it ("1", "I" and "l" are "l", "m" is "rn").
Here letters also count in any case, since log-in does not ask for it. So "i" is "l" too, because "I" is; and the step is repeated until
nothing changes. Whoever looks like a name of Latin letters, in whatever case, has its skeleton. Pure. `storage.users` keeps skeletons
unique; the data is made by scripts/confusables.
"""

import re
import unicodedata
from functools import cache
from importlib.resources import files

SKELETON_LONGEST = (
    255  # characters: some letters become eighteen, and an index of PostgreSQL takes at most 2,700 bytes; what follows is cut off
)
MAX_FOLDING_STEPS = 8  # two are usual, and each can only bring a name nearer to its end

# What UTS #39 keeps apart, since it does not fold case: "i" from "I". And the dots of "i" and "j": without one, or with a second one in
# its place, they look the same.
_SAME_IN_SOME_CASE = str.maketrans({"i": "l", "\N{LATIN SMALL LETTER DOTLESS J}": "j"})
_SECOND_DOT = re.compile("(?<=[lj])\N{COMBINING DOT ABOVE}+")


@cache
def table() -> dict[int, str | None]:
    """Code point → its prototype; None: it has no look at all. Takes some 5 ms once, so a node asks for it before it serves."""
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


def skeleton(name: str) -> str:
    """What names that look alike have in common; "" when nothing of the name can be seen."""
    text = _alike(name)  # first as it is shown: NFKC makes "s" of the long s, which looks like "f"
    for _ in range(MAX_FOLDING_STEPS):
        before, text = text, _any_case(_alike(unicodedata.normalize("NFKC", text)))
        if text == before:
            break
    return text[:SKELETON_LONGEST]


def _any_case(text: str) -> str:
    """One text for all that are alike in some case."""
    return _SECOND_DOT.sub("", text.casefold().translate(_SAME_IN_SOME_CASE))


def _alike(text: str) -> str:
    """UTS #39's skeleton of a text."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).translate(table()))
