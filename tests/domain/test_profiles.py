"""The rules for names, addresses, pictures and passwords."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain import profiles
from scoreboard.domain.errors import FieldError


def refused(value: str | FieldError) -> bool:
    return isinstance(value, FieldError)


@pytest.mark.parametrize(
    "name",
    [
        *("ab", "x" * 51, "a@b", "a\u0000b", "a\nb", "a\x7fb", "a\u2028b", "a\ud800b", "a\ue000b"),
        *("abc\u202e", "\u2066abc", "ab\u200f", " Ada", "Ada ", "\u3000Ada", "   "),
        *("\u200b\u200b\u200b", "\u200d \u0301", "\ufeff\ufeff\ufeff"),
    ],
)
def test_names_that_would_mislead_or_not_be_seen_are_refused(name: str) -> None:
    """Too short, too long, with @, with control characters, turned round, invisible, or padded."""
    assert refused(profiles.username(name))


@pytest.mark.parametrize("name", ["Ada", "x" * 50, "李小龍", "Ж_ж", "👩\u200d👩\u200d👧 fam", "O'Neil <b>", "a b c", "🫨🫨🫨"])
def test_names_of_any_script_are_taken(name: str) -> None:
    """As they are; text is escaped where it is shown."""
    assert profiles.username(name) == name


def test_names_are_composed() -> None:
    """The same name typed in two ways is one name; its length is counted afterwards."""
    assert profiles.username("Zoe\u0308") == "Zoë"
    assert profiles.username("e\u0308" * 50) == "ë" * 50


@pytest.mark.parametrize(
    "address", ["", "ada", "a b@example.org", "a@b@c", "@b.org", "a@", "a@.org", "a@b..org", "a\u0000@b.org", "a\u200b@b.org"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    """Only the form is checked."""
    assert refused(profiles.email(address))
    assert refused(profiles.email("a@" + "b" * 254))


@pytest.mark.parametrize("address", ["ada@example.org", "a+b.c@sub.example.org", "ü@exämple.org", "root@localhost", "a@" + "b" * 253])
def test_addresses_are_taken_as_they_are(address: str) -> None:
    """Space around is left off."""
    assert profiles.email(f" {address}\n") == address


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "https://",
            "https:///a",
            "http://example.org/a.png",
            "//example.org/a.png",
            "javascript:alert(1)",
            "data:image/png;base64,AA",
        ),
        *("https://[::1/a", "https://example.org:x/", "https://user@example.org/a", "https://example.org/\n", "https://example.org/ü"),
        *('https://example.org/"onerror="x', "https://example.org/a b", "https://example.org/<", "https://example.org/" + "a" * 500),
    ],
)
def test_pictures_come_by_https_alone(url: str) -> None:
    """And their address has no character that belongs encoded."""
    assert refused(profiles.avatar_url(url))


@pytest.mark.parametrize(
    "url", ["https://example.org", "https://example.org:8443/a%20b.png?size=2&x=[1]#top", "https://[2001:db8::1]/a", "HTTPS://Example.ORG/"]
)
def test_addresses_of_pictures_are_taken_as_they_are(url: str) -> None:
    """Query, port and fragment included."""
    assert profiles.avatar_url(url) == url


def test_passwords_have_ten_characters_and_any_that_there_are() -> None:
    """Ten to 1024, spaces and emoji included."""
    assert refused(profiles.password("123456789"))
    assert refused(profiles.password("x" * 1025))
    assert profiles.password("   🐴 horse ") == "   🐴 horse "
    assert profiles.password("x" * 1024) == "x" * 1024


@given(st.text())
def test_what_is_taken_can_be_stored(text: str) -> None:
    """Whatever comes in, nothing raises, and what comes out fits its column and is UTF-8 without U+0000."""
    for rule, longest in ((profiles.username, 50), (profiles.email, 255), (profiles.avatar_url, 500)):
        value = rule(text)
        if isinstance(value, str):
            assert len(value) <= longest
            assert b"\x00" not in value.encode()
