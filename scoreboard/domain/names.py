"""The characters of user names: invisible ones are removed, misleading ones are refused. Pure.

`fold` returns the name as it is stored, however it was typed or copied; a log-in folds the typed name in the same way.
`fault` says what is wrong with a folded name. Categories come from one version of Unicode, independent of Python's, so
that all nodes agree. The rules for e-mail addresses are in email_addresses.
"""

import re

# of Unicode 17, as the confusables; Python 3.11's own knows the letters and emoji of 2021
import unicodedata2 as unicodedata

from scoreboard.domain.skeletons import is_ignorable

# They change the direction of the text that follows: one such name would rearrange the whole row of the board.
DIRECTION_MARKS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Visible by their category, but without a glyph, or with one that stands for a missing object. Unicode has no property
# for them.
BLANK_CHARACTERS = frozenset("\u2800\U0001d159\U00016fe4\U00013441\U00013442\ufff9\ufffa\ufffb\ufffc\ufffd") | {
    chr(code)
    for code in range(0x13430, 0x13440)  # they join hieroglyphs
}
MAX_MARKS_IN_A_ROW = 4  # in a row: UTS #39, section 5.4; more of them paint over the rows above and below
ZWNJ, ZWJ = "\u200c", "\u200d"
TEXT_STYLE, EMOJI_STYLE = "\ufe0e", "\ufe0f"
BLACK_FLAG, END_OF_TAGS = "\U0001f3f4", "\U000e007f"

VIRAMA_CLASS = 9  # canonical combining class: it joins two letters, and a joiner after it says how
# Scripts whose letters join: Arabic and its neighbours, Mongolian, Hanifi Rohingya, Adlam.
_CURSIVE = re.compile(
    "[\u0600-\u08ff\u1800-\u18af\ufb50-\ufdff\ufe70-\ufefc\U00010d00-\U00010d3f\U0001e900-\U0001e95f]"
)
_MONGOLIAN = re.compile("[\u1820-\u18aa]")
_IDEOGRAPH = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd]")
_STYLED = frozenset("#*0123456789\u203c\u2049\u3030\u303d")  # emoji in one style and text in the other, besides symbols
_TAGS = re.compile(f"(?<={BLACK_FLAG})[\U000e0020-\U000e007e]{{1,16}}{END_OF_TAGS}")  # flags of regions
_SPACES = re.compile("[ \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+")  # category Zs
# Full-width and half-width letters, as the keyboards of Japanese and Korean write them. Not the half-width filler, a
# blank letter, which is refused by its own number.
_WIDTHS = {
    code: chr(int(unicodedata.decomposition(chr(code)).partition("> ")[2], 16))
    for code in range(0xFF01, 0xFFEF)
    if code != 0xFFA0 and unicodedata.decomposition(chr(code))
}
# Letters, numbers, punctuation, symbols. The rest shows nothing by itself.
_VISIBLE = ("L", "N", "P", "S")


def nfc(text: str) -> str:
    """Unicode's composed form (NFC): the same text, whichever way its accents were typed."""
    return str(unicodedata.normalize("NFC", text))


def usual_width(text: str) -> str:
    """Full-width and half-width letters as the usual ones, composed: the width mapping rule of PRECIS (RFC 8265,
    UsernameCaseMapped)."""
    return nfc(text.translate(_WIDTHS))


def fold(text: str) -> str:
    """The text composed and in usual width, with one plain space for any number of spaces of any kind, none at the
    ends, and without invisible characters that change nothing."""
    return _SPACES.sub(" ", usual_width(_without_invisible(text))).strip()


def is_visible(text: str) -> bool:
    """Whether the text has a visible character."""
    return any(unicodedata.category(character).startswith(_VISIBLE) and not _is_blank(character) for character in text)


def fault(name: str) -> str | None:
    """What is wrong with the characters of a folded name, as a message for people; None: nothing."""
    for character in name:
        category = unicodedata.category(character)
        if character in DIRECTION_MARKS:
            what = "marks of the direction of writing"
        elif category in {"Cc", "Zl", "Zp"}:
            what = "control characters or line breaks"
        elif category == "Co":
            what = "characters for private use"
        elif category in {"Cs", "Cn"}:
            what = "characters that Unicode does not define"
        elif _is_blank(character):
            what = "characters that show nothing"
        else:
            continue
        return f"must not contain {what} (U+{ord(character):04X})"
    if _most_marks(name) > MAX_MARKS_IN_A_ROW:
        return f"must not have more than {MAX_MARKS_IN_A_ROW} marks on one letter"
    return None


def _is_blank(character: str) -> bool:
    """Whether the character is invisible although its category is a visible one. U+17B4 and U+17B5 are invisible marks
    of Khmer."""
    is_letter = unicodedata.category(character)[0] == "L"
    return character in BLANK_CHARACTERS or (is_letter and is_ignorable(character)) or character in "\u17b4\u17b5"


def _most_marks(name: str) -> int:
    """The largest number of marks, such as accents, on one letter. Joiners between marks do not begin a new letter."""
    most = marks = 0
    for character in unicodedata.normalize("NFD", name):
        category = unicodedata.category(character)
        if category in {"Mn", "Me"}:
            marks += 1
            most = max(most, marks)
        elif category != "Cf":
            marks = 0
    return most


def _without_invisible(text: str) -> str:
    """The text without ignorable characters, except where they change what is shown: in emoji, and between joining
    letters."""
    if not any(map(is_ignorable, text)):
        return text
    tags = {place for found in _TAGS.finditer(text) for place in range(*found.span())}
    kept: list[str] = []
    for place, character in enumerate(text):
        is_kept = place in tags or not is_ignorable(character) or _is_refused(character)
        if is_kept or (kept and _is_meaningful(character, kept, text[place + 1 : place + 2])):
            kept.append(character)
    return "".join(kept)


def _is_refused(character: str) -> bool:
    """Whether `fault` refuses the character. Such characters are not removed silently: the name is refused."""
    return character in DIRECTION_MARKS or fault(character) is not None


def _is_meaningful(character: str, before: list[str], following: str) -> bool:
    last = before[-1]
    if character == ZWJ:
        return _is_virama(last) or (_is_emoji(before) and bool(following) and _is_symbol(following))
    if character == ZWNJ:
        return _is_virama(last) or bool(_CURSIVE.match(last) and _CURSIVE.match(following))
    if character in {TEXT_STYLE, EMOJI_STYLE}:
        return _is_symbol(last) or last in _STYLED
    if "\u180b" <= character <= "\u180f" and character != "\u180e":
        return bool(_MONGOLIAN.match(last))
    if "\U000e0100" <= character <= "\U000e01ef":
        return bool(_IDEOGRAPH.match(last))
    return False


def _is_emoji(before: list[str]) -> bool:
    """Whether the text ends with a symbol, in any style or skin tone, or with a flag's tags."""
    for character in reversed(before):
        if character not in {TEXT_STYLE, EMOJI_STYLE} and not "\U000e0020" <= character <= END_OF_TAGS:
            return _is_symbol(character)
    return False


def _is_symbol(character: str) -> bool:
    return str(unicodedata.category(character)).startswith("S")


def _is_virama(character: str) -> bool:
    return int(unicodedata.combining(character)) == VIRAMA_CLASS
