"""Which characters names may be written with. Each input by its code point: what is tested can't be seen."""

import sys

import pytest
import unicodedata2 as unicodedata
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain import account_rules as profiles
from scoreboard.domain import names
from scoreboard.domain.errors import FieldError
from scoreboard.domain.skeletons import is_ignorable

# Signs that stand around or before numbers: seen, though Unicode calls them format characters.
WITH_NUMBERS = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}


def text(*codes: int) -> str:
    return "".join(map(chr, codes))


@pytest.mark.parametrize(
    ("code", "what"),
    [
        *(
            (code, "nothing")
            for code in (0x3164, 0x115F, 0x1160, 0xFFA0, 0x17B4, 0x17B5, 0x2800, 0x1D159, 0x16FE4, 0x13441, 0x13442)
        ),
        *((code, "nothing") for code in (0xFFF9, 0xFFFA, 0xFFFB, 0xFFFC, 0xFFFD, 0x13430, 0x1343F)),
        *((code, "direction") for code in (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))),
        *((code, "control") for code in (0x00, 0x07, 0x09, 0x0A, 0x0D, 0x1B, 0x7F, 0x85, 0x9B, 0x2028, 0x2029)),
        *((code, "private") for code in (0xE000, 0xF8FF, 0xF0000, 0x10FFFD)),
        *(
            (code, "define")
            for code in (
                0xFFFE,
                0xFFFF,
                0xFDD0,
                0xFDEF,
                0x1FFFE,
                0x10FFFF,
                0x0378,
                0x2065,
                0xFFF0,
                0xE0080,
                0x3FFFD,
                0xD800,
            )
        ),
    ],
)
def test_characters_that_mislead_are_refused_by_name(code: int, what: str) -> None:
    """Blank letters, marks of direction, control characters, private use, what Unicode does not define: wherever it
    stands, and named."""
    for name in (f"Ad{chr(code)}a", f"Ada{chr(code)}a", "x" + chr(code) * 3 + "x"):
        refused = profiles.username(name)
        assert isinstance(refused, FieldError)
        assert what in refused.message
        assert f"U+{code:04X}" in refused.message


@pytest.mark.parametrize(
    "code",
    [
        *(
            0x00AD,
            0x034F,
            0x180B,
            0x180E,
            0x200B,
            0x200C,
            0x200D,
            0x2060,
            0x2061,
            0x2064,
            0x206A,
            0x206F,
            0xFEFF,
            0xFE00,
            0xFE0E,
            0xFE0F,
        ),
        *(0x1BCA0, 0x1D173, 0xE0001, 0xE0020, 0xE0041, 0xE007F, 0xE0100, 0xE01EF),
    ],
)
def test_invisible_characters_are_left_out(code: int) -> None:
    """Zero width, soft hyphens, joiners, selectors and tags that change nothing, as copied pages have them: the name is
    what is seen."""
    invisible = chr(code)
    for name in (
        f"A{invisible}da",
        f"{invisible}Ada",
        f"Ada{invisible}",
        f"A{invisible}{invisible}d{invisible}a",
        f" {invisible} Ada",
    ):
        assert profiles.username(name) == "Ada"
    assert profiles.username(f"Zoe{invisible}{chr(0x308)}") == text(0x5A, 0x6F, 0xEB)
    assert isinstance(profiles.username(invisible * 5), FieldError)


@pytest.mark.parametrize("code", [0x20, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000])
def test_every_space_is_a_space(code: int) -> None:
    """One of any kind or several are one plain one; none stands at the ends."""
    space = chr(code)
    for name in (
        f"Ada{space}L",
        f"Ada{space}{space}L",
        f"Ada {space} L",
        f"{space}Ada{space}L{space}",
        f" Ada{space}{chr(0x200B)}{space}L\n",
    ):
        assert profiles.username(name) == "Ada L"


@pytest.mark.parametrize(
    "name",
    [
        text(0x1F469, 0x200D, 0x1F469, 0x200D, 0x1F467, 0x20, 0x66),  # a family
        text(0x1F469, 0x1F3FD, 0x200D, 0x1F680),  # an astronaut with a colour of skin
        text(0x1F3F3, 0xFE0F, 0x200D, 0x1F308),  # the rainbow flag
        text(0x1F3F4, 0xE0067, 0xE0062, 0xE0073, 0xE0063, 0xE0074, 0xE007F, 0x41, 0x64),  # Scotland's
        text(0x2764, 0xFE0F, 0x41, 0x64),  # a heart as an emoji
        text(0x31, 0xFE0F, 0x20E3, 0x41),  # a keycap
        text(0x0645, 0x06CC, 0x200C, 0x062E, 0x0648, 0x0627, 0x0645),  # Persian
        text(0x0DC1, 0x0DCA, 0x200D, 0x0DBB, 0x0DD3),  # Sinhala: Sri
        text(0x0915, 0x094D, 0x200C, 0x0937),  # Hindi
        text(0x845B, 0xE0100, 0x98FE, 0x533A),  # a Japanese name with a variant
        text(0x182A, 0x180B, 0x1820, 0x1820),  # Mongolian
        text(0x1FAE8, 0x1FAE8, 0x1FAE8),  # an emoji of 2023
        text(0x0600, 0x0661, 0x0662, 0x0663),  # Arabic numbers with their sign
    ],
)
def test_characters_that_change_what_is_seen_stay(name: str) -> None:
    """Within emoji, and where letters join."""
    assert profiles.username(name) == name


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ((0x1F3F4, 0xE0067, 0xE0062, 0x41, 0x64), (0x1F3F4, 0x41, 0x64)),  # tags without their end
        ((0x41, 0x64, 0x61, 0xE0067, 0xE007F), (0x41, 0x64, 0x61)),  # tags of nothing
        ((0x1F469, 0x200D, 0x41, 0x64), (0x1F469, 0x41, 0x64)),  # an emoji joined to a letter
        ((0x41, 0x200D, 0x1F469, 0x64), (0x41, 0x1F469, 0x64)),
        ((0x1F469, 0x200D, 0x200D, 0x1F469, 0x64), (0x1F469, 0x200D, 0x1F469, 0x64)),
        ((0x0645, 0x200C, 0x41, 0x64), (0x0645, 0x41, 0x64)),
        ((0x0645, 0x06CC, 0x200C), (0x0645, 0x06CC)),
    ],
)
def test_the_same_characters_elsewhere_are_left_out(typed: tuple[int, ...], stored: tuple[int, ...]) -> None:
    """A joiner that joins nothing, tags without a flag."""
    assert names.fold(text(*typed)) == text(*stored)


def test_no_letter_of_unicode_is_refused_and_nothing_invisible_is_taken() -> None:
    """All of them: what is left out or refused shows nothing, what is taken is defined and shows something."""
    for code in (*range(0x33500), *range(0xE0000, 0xE1000), *range(0xFFF00, sys.maxunicode + 1, 0x100)):
        character, category = chr(code), unicodedata.category(chr(code))
        kept = names.fold(character)
        if kept == "":
            assert category == "Zs" or character.isspace() or is_ignorable(character), hex(code)
        elif names.fault(kept) is None:
            assert not is_ignorable(character), hex(code)
            assert category[0] in "LMNPS" or code in {
                0x600,
                0x601,
                0x602,
                0x603,
                0x604,
                0x605,
                0x6DD,
                0x70F,
                0x890,
                0x891,
                0x8E2,
                0x110BD,
                0x110CD,
            }
        else:
            assert (
                category[0] == "C"
                or category in {"Zl", "Zp"}
                or is_ignorable(character)
                or character in names.BLANK_CHARACTERS
            ), hex(code)


@given(st.text(max_size=60))
def test_folding_twice_changes_nothing(typed: str) -> None:
    """Whatever was typed."""
    once = names.fold(typed)
    assert names.fold(once) == once
    assert once == once.strip()
    assert "  " not in once


def test_letters_of_any_width_are_the_usual_ones() -> None:
    """As the keyboards of Japanese and Korean write them; a half-width letter and its mark are one letter."""
    for typed, stored in (
        ("\uff11\uff12\uff13\uff41\uff22", "123aB"),
        ("\uff76\uff9e\uff86\uff91", "\u30ac\u30cb\u30e0"),
        ("\uffdc\uffdc\uffdc", "\u3163" * 3),
    ):
        assert profiles.username(typed) == stored
    assert isinstance(profiles.username("ada\uff20example"), FieldError)


@pytest.mark.parametrize(
    "name",
    [
        "z" + chr(0x301) * 48 + "z",
        "abc" + chr(0x323) + chr(0x302) + chr(0x301) + chr(0x308) + chr(0x30C),
        text(0x1EBF) + text(0x308, 0x30C, 0x30A) + "ab",  # a composed letter has its own marks
        "ab" + text(0x20DD) * 5,
        "a" + text(0x94D, 0x200D) * 5 + "bc",  # joiners between them
    ],
)
def test_piles_of_marks_are_refused(name: str) -> None:
    """More than four on a letter paint over the rows around it."""
    refused = profiles.username(name)
    assert isinstance(refused, FieldError)
    assert refused.message == "must not have more than 4 marks on one letter"


@pytest.mark.parametrize(
    "name",
    [
        text(0x4E, 0x67, 0x75, 0x79, 0x1EC5, 0x6E),  # Vietnamese
        # Hebrew with its vowels, a dot and a sign of cantillation
        text(0x5E9, 0x5C1, 0x5BC, 0x5B8, 0x591, 0x5DC, 0x5D5, 0x5B9, 0x5DD),
        text(0xE17, 0xE35, 0xE48, 0xE1B, 0xE31, 0xE49),  # Thai
        text(0x0627, 0x0644, 0x0644, 0x0651, 0x0670, 0x0647),  # Arabic
        text(0xF62, 0xF90, 0xFB1, 0xF7A, 0xF0B, 0xF62),  # Tibetan: a stack of three letters and a vowel
        text(0x1019, 0x103C, 0x103D, 0x103E, 0x1031, 0x1037, 0x1038),  # Burmese
        "e" + text(0x323, 0x302, 0x301, 0x308) + "ab",  # as many as there may be
    ],
)
def test_marks_of_living_scripts_are_taken(name: str) -> None:
    """None of them needs more than four on a letter."""
    assert profiles.username(name) == names.fold(name)


def test_addresses_lose_what_phones_and_pages_put_around_them() -> None:
    """Spaces of any kind, zero widths; nothing within."""
    for around in (0x20, 0xA0, 0x09, 0x0A, 0x3000, 0x200B, 0xFEFF, 0xAD, 0x2060):
        assert profiles.email(f"{chr(around)} Ada@example.org {chr(around)}") == "Ada@example.org"
    assert isinstance(profiles.email(f"ada{chr(0x200B)}@example.org"), FieldError)
