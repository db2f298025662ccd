"""What names look like: UTS #39's skeletons, for each way to read a capital I, in any case."""

import string
import sys

import pytest
import unicodedata2 as unicodedata
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain.skeletons import (
    MAX_SKELETON_LENGTH,
    fold_case,
    folded_skeleton,
    skeleton_of_first_rule,
    skeletons,
    table,
)


def collide(one: str, other: str) -> bool:
    return not {*skeletons(one)}.isdisjoint(skeletons(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(
            ("PayPaI", "paypal"),
            ("load-000001", "load-00000l"),
            ("Bob0", "BOBO"),
            ("rnike", "Mike"),
            ("Аdа", "Ada"),
            ("Zoe\u0308", "ZOË"),
        ),
        *(
            ("A\u200bda", "Ada"),
            ("Ａｄａ", "ada"),
            ("a\u2010b", "a-b"),
            ("ﬁn", "fin"),
            ("A\u00a0b", "a b"),
            ("stra\u00dfe", "STRASSE"),
        ),
        *(
            ("ADMIN", "adm\u0456n"),
            ("BILL", "b\u0456ll"),
            ("IVAN", "ivan"),
            ("ALICE", "al\u0456ce"),
            ("Igor", "1gor"),
            ("Bill", "BiII"),
        ),
        *(
            ("p\u0130xi", "pixi"),
            ("p\u0131xi", "PIXI"),
            ("pi\u0307xi", "pixi"),
            ("P|X1", "PIXI"),
            ("S\u00cd", "s\u00ed"),
        ),
        *(
            ("\u0237im", "Jim"),
            ("j\u0307im", "Jim"),
            ("Je\u017f\u017f", "JEFF"),
            ("Ali\u03f2e", "ALICE"),
            ("A\u2003\u00a0b ", "a b"),
        ),
    ],
)
def test_names_that_look_alike_have_a_skeleton_in_common(one: str, other: str) -> None:
    """Digits for letters, letters of other scripts, wide forms, dots of i and j, what shows nothing, and all of it in
    any case."""
    assert collide(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(
            ("Ian", "lan"),
            ("Ian", "ian"),
            ("IAN", "lan"),
            ("MAIL", "MAlL"),
            ("mail", "MAIL"),
            ("Iilie", "IIlie"),
            ("\u2160an", "lan"),
        ),
        *(
            ("\u0412ILL", "bill"),
            ("\u0412ILL", "Bill"),
            ("BILL", "\u0412ill"),
            ("\u0406van", "ivan"),
            ("\u0399van", "lvan"),
        ),
        *(
            ("IIya", "ilya"),
            ("Dr. IIya", "dr. ilya"),
            ("ilya", "Ilya"),
            ("\U0001d408an", "lan"),
            ("\u2163", "IV"),
            ("\u2163", "iv"),
        ),
    ],
)
def test_a_capital_i_is_read_in_each_way(one: str, other: str) -> None:
    """As "l", which it looks like; as the "i" that it is, everywhere or at the beginning of a word alone; in every
    script."""
    assert collide(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(
            ("Mail", "Mall"),
            ("mail", "mall"),
            ("ian", "lan"),
            ("Mila", "Mlla"),
            ("igor", "lgor"),
            ("bill", "blll"),
            ("fiat", "flat"),
        ),
        *(("Claire", "Ciaire"), ("Nail", "nall"), ("Tim", "Tlm"), ("p|x1", "pixi")),
    ],
)
def test_a_small_i_is_no_l(one: str, other: str) -> None:
    """Both names are possible, though they would look alike in capitals that nobody has written."""
    assert not collide(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ada", "Ade"),
        ("load-000001", "load-000011"),
        ("Zoe", "Zoë"),
        ("Player 1", "Player 2"),
        ("李小龍", "李小龙"),
        ("a b", "ab"),
    ],
)
def test_names_that_can_be_told_apart_have_none_in_common(one: str, other: str) -> None:
    """Another letter, an accent, a space."""
    assert not collide(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(
            ("\u03a3\u038a\u03a3\u03a5\u03a6\u039f\u03a3", "\u03c3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2"),
            ("\u03c2", "\u03c3"),
        ),
        *(
            ("stra\u00dfe", "STRASSE"),
            ("stra\u1e9ee", "strasse"),
            ("\u017fam", "Sam"),
            ("\u212aim", "Kim"),
            ("\u00c5sa", "\u212bsa"),
        ),
        *(
            ("\u0587", "\u0535\u0582"),
            ("\u01c5", "\u01c6"),
            ("\u1f80", "\u1f88"),
            ("\u0390", "\u03b9\u0308\u0301"),
            ("\u01f0", "J\u030c"),
        ),
        *(("\u13a0", "\uab70"), ("\u1c88", "\ua64a"), ("\u0412\u0430\u0441\u044f", "\u0432\u0410\u0421\u042f")),
    ],
)
def test_names_that_differ_in_case_alone_are_one(one: str, other: str) -> None:
    """By Unicode's full case folding: the final sigma, the sharp s, ligatures, iota below, letters composed in one case
    alone."""
    assert fold_case(one) == fold_case(other)
    assert folded_skeleton(one) == folded_skeleton(other)
    assert collide(one, other)


def test_a_latin_letter_has_the_skeletons_of_all_that_look_like_it() -> None:
    """In both of its cases: a name of such letters can't be imitated in another case."""
    letters = string.ascii_letters
    assert [letter for letter in letters if not collide(letter.lower(), letter.upper())] == []
    assert [
        chr(code) for code, look in table().items() if look and look in letters and not collide(chr(code), look)
    ] == []


def test_ordinary_names_have_one_skeleton() -> None:
    """Only a capital I, or letters whose small forms look like others than their capitals, need more."""
    assert [
        name
        for name in ("Ada", "Mail", "Zoë", "李小龍", "x" * 50, "load-000001", "O'Neil <b>")
        if len(skeletons(name)) != 1
    ] == []
    assert skeletons("Ian") == ("ian", "lan")


def test_what_shows_nothing_has_no_look() -> None:
    """Also letters: Hangul's fillers."""
    assert skeletons("\u3164\u115f\u200d\ufe0f") == ()


@given(st.text(max_size=50))
def test_a_skeleton_is_its_own(text: str) -> None:
    """Folding it again changes nothing, and it fits into an index."""
    for look in skeletons(text):
        assert len(look) <= MAX_SKELETON_LENGTH
        if len(look) < MAX_SKELETON_LENGTH:
            assert skeletons(look) == (look,)


@given(st.text(alphabet="iIlL1|jJ\u0456\u0406\u0131\u0130aA\u0410 ", max_size=12))
def test_whoever_looks_the_same_or_differs_in_case_collides(text: str) -> None:
    """However capital and small letters are mixed."""
    shown = text.replace("I", "l").replace("1", "l").replace("|", "l").replace("\u0406", "l").replace("\u0410", "A")
    assert not skeletons(text) or collide(text, shown)
    assert not skeletons(text) or collide(text, text.casefold())


def test_every_character_comes_to_an_end() -> None:
    """No two prototypes lead to each other, of all characters that are not their own skeleton."""
    texts = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    changing = [
        text
        for text in texts
        if ord(text) in table() or text.casefold() != text or unicodedata.normalize("NFKD", text) != text
    ]
    assert len(changing) > 10_000
    assert [text for text in changing for look in skeletons(text) if skeletons(look) != (look,)] == []


def test_the_first_rule_is_what_it_was() -> None:
    """Its keys are in databases: one for a name, in which "i" is "l"."""
    for name, look in (
        ("Mail", "rnall"),
        ("Ian", "lan"),
        ("\u0412ILL", "blll"),
        ("\u0130pek", "lpek"),
        ("\u0237im", "jlrn"),
        ("0", "o"),
    ):
        assert skeleton_of_first_rule(name) == look
