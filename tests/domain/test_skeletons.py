"""What names look like: UTS #39's skeletons, in any case."""

import string
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain.skeletons import SKELETON_LONGEST, skeleton, table


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(("PayPaI", "paypal"), ("load-000001", "load-00000l"), ("Bob0", "BOBO"), ("rnike", "Mike"), ("Аdа", "Ada"), ("Zoe\u0308", "ZOË")),
        *(("A\u200bda", "Ada"), ("Ａｄａ", "ada"), ("a\u2010b", "a-b"), ("ﬁn", "fin"), ("A\u00a0b", "a b"), ("stra\u00dfe", "STRASSE")),
        *(("ADMIN", "adm\u0456n"), ("BILL", "b\u0456ll"), ("IVAN", "ivan"), ("ALICE", "al\u0456ce"), ("Igor", "1gor"), ("Bill", "BiII")),
        *(("p\u0130xi", "pixi"), ("p\u0131xi", "PIXI"), ("pi\u0307xi", "pixi"), ("p|x1", "pixi"), ("S\u00cd", "s\u00ed")),
        *(("\u0237im", "Jim"), ("j\u0307im", "Jim"), ("Je\u017f\u017f", "JEFF"), ("Ali\u03f2e", "ALICE")),
    ],
)
def test_names_that_look_alike_have_one_skeleton(one: str, other: str) -> None:
    """Digits for letters, letters of other scripts, wide forms, dots of i and j, what shows nothing, and all of it in any case."""
    assert skeleton(one) == skeleton(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Ada", "Ade"), ("load-000001", "load-000011"), ("Zoe", "Zoë"), ("Player 1", "Player 2"), ("李小龍", "李小龙"), ("a b", "ab")],
)
def test_names_that_can_be_told_apart_have_two(one: str, other: str) -> None:
    """Another letter, an accent, a space."""
    assert skeleton(one) != skeleton(other)


def test_a_latin_letter_has_one_skeleton_with_all_that_look_like_it() -> None:
    """In both of its cases: a name of such letters can't be imitated in another case."""
    letters = string.ascii_letters
    assert [letter for letter in letters if skeleton(letter.lower()) != skeleton(letter.upper())] == []
    assert [chr(code) for code, look in table().items() if look and look in letters and skeleton(chr(code)) != skeleton(look)] == []


def test_what_shows_nothing_has_no_look() -> None:
    """Also letters: Hangul's fillers."""
    assert skeleton("\u3164\u115f\u200d\ufe0f") == ""


@given(st.text(max_size=50))
def test_a_skeleton_is_its_own(text: str) -> None:
    """Folding it again changes nothing, in whatever case it comes, and it fits into an index."""
    look = skeleton(text)
    assert len(look) <= SKELETON_LONGEST
    if len(look) < SKELETON_LONGEST:
        assert skeleton(look) == look


def test_every_character_comes_to_an_end() -> None:
    """No two prototypes lead to each other."""
    texts = (chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000)
    assert [text for text in texts if skeleton(look := skeleton(text)) != look] == []
