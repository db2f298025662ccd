"""The rules for names, addresses, pictures and passwords."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain import account_rules, email_addresses, names
from scoreboard.domain.errors import FieldError


def refused(value: str | FieldError) -> bool:
    return isinstance(value, FieldError)


@pytest.mark.parametrize(
    "name",
    [
        *("ab", "x" * 51, "a@b", "a\u0000b", "a\nb", "a\x7fb", "a\u2028b", "a\ud800b", "a\ue000b"),
        *("abc\u202e", "\u2066abc", "ab\u200f", "   ", " ab ", "a\u00a0\u2003\u200b"),
        *("\u200b\u200b\u200b", "\u200d \u0301", "\ufeff\ufeff\ufeff", "\u3164\u3164\u3164", "\u0301" * 16_000),
        *("user-1a2b3c4d", "User-00000000", "user\u20101a2b3c4d", "028e1b3b-469e-4c98-9ca1-1ae0b5657e30"),
        *(
            "{028E1B3B-469E-4C98-9CA1-1AE0B5657E30}",
            "028e1b3b469e4c989ca11ae0b5657e30",
            "urn:uuid:028e1b3b-469e-4c98-9ca1-1ae0b5657e30",
        ),
    ],
)
def test_names_that_would_mislead_or_not_be_seen_are_refused(name: str) -> None:
    """Too short, too long, with @, with control characters, turned round, invisible, or like the id of a user."""
    assert refused(account_rules.username(name))


@pytest.mark.parametrize(
    "name", ["Ada", "x" * 50, "李小龍", "Ж_ж", "👩\u200d👩\u200d👧 fam", "O'Neil <b>", "a b c", "🫨🫨🫨"]
)
def test_names_of_any_script_are_taken(name: str) -> None:
    """As they are; text is escaped where it is shown."""
    assert account_rules.username(name) == name


def test_names_are_composed() -> None:
    """The same name typed in two ways is one name; its length is counted afterwards."""
    assert account_rules.username("Zoe\u0308") == "Zoë"
    assert account_rules.username("e\u0308" * 50) == "ë" * 50


@pytest.mark.parametrize(
    "address",
    ["", "ada", "a b@example.org", "a@b@c", "@b.org", "a@", "a@.org", "a@b..org", "a\u0000@b.org", "a\u200b@b.org"],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    """Only the form is checked."""
    assert refused(account_rules.email(address))
    assert refused(account_rules.email("a@" + "b" * 254))


@pytest.mark.parametrize(
    "address", ["ada@example.org", "a+b.c@sub.example.org", "ü@exämple.org", "root@localhost", "a@" + "b" * 253]
)
def test_addresses_are_taken_as_they_are(address: str) -> None:
    """Space around is left off."""
    assert account_rules.email(f" {address}\n") == address


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
        *(
            "https://[::1/a",
            "https://example.org:x/",
            "https://user@example.org/a",
            "https://example.org/\n",
            "https://example.org/ü",
        ),
        *(
            'https://example.org/"onerror="x',
            "https://example.org/a b",
            "https://example.org/<",
            "https://example.org/" + "a" * 500,
        ),
    ],
)
def test_pictures_come_by_https_alone(url: str) -> None:
    """And their address has no character that belongs encoded."""
    assert refused(account_rules.avatar_url(url))


@pytest.mark.parametrize(
    "url",
    [
        *(
            "https://127.0.0.1/a",
            "https://2130706433/",
            "https://0x7f.0.0.1/",
            "https://0x7f000001/",
            "https://0177.0.0.1/",
            "https://127.1/",
        ),
        *(
            "https://1.2.3.0x/",
            "https://example.1/",
            "https://[::1]/",
            "https://[2001:db8::1]/a",
            "https://[::ffff:127.0.0.1]/",
        ),
        *(
            "https://localhost/a",
            "https://intranet/a",
            "https://a.localhost/",
            "https://printer.local/",
            "https://metadata.google.internal/",
        ),
        *(
            "https://example.org./a",
            "https://%31%32%37.0.0.1/",
            "https://example.org:8443/a",
            "https://example.org:22/",
            "https://example.org:0/",
        ),
        *("https://board.example/avatars/1", "https://BOARD.example:443/"),
    ],
)
def test_pictures_come_from_public_hosts_by_name_alone(url: str) -> None:
    """No IP address in any spelling that a browser takes, no host of a local network, no other port, and not from this
    server."""
    assert refused(account_rules.avatar_url(url, "board.example"))


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org",
        "https://example.org:443/a%20b.png?size=2&x=[1]#top",
        "HTTPS://Example.ORG/",
        "https://a-b.c_d.xn--p1ai/1.2.3.4",
    ],
)
def test_addresses_of_pictures_are_taken_as_they_are(url: str) -> None:
    """Query and fragment included."""
    assert account_rules.avatar_url(url) == url


def test_passwords_have_ten_characters_and_any_that_there_are() -> None:
    """Ten to 1024, spaces and emoji included."""
    assert refused(account_rules.password("123456789"))
    assert refused(account_rules.password("x" * 1025))
    assert account_rules.password("   🐴 horse ") == "   🐴 horse "
    assert account_rules.password("x" * 1024) == "x" * 1024


@pytest.mark.parametrize("password", ["Lovelace1815", "LOVELACE1815", "lovelace1815@example.org", "Zoe\u0308motorhead"])
def test_ones_own_names_are_no_passwords(password: str) -> None:
    """Whoever guesses begins with them; in any case, however they are typed."""
    assert refused(account_rules.password(password, ("lovelace1815", "Lovelace1815@example.org", "ZoëMotorhead")))
    assert (
        account_rules.password(password + "!", ("lovelace1815", "Lovelace1815@example.org", "ZoëMotorhead"))
        == password + "!"
    )


@pytest.mark.parametrize(
    "rule", [account_rules.username, account_rules.email, account_rules.avatar_url, account_rules.password]
)
def test_what_is_too_long_is_refused_before_any_work(
    rule: Callable[[str], str | FieldError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Composing 16 kB of marks takes 0.3 s: it is not begun."""

    def fold(text: str) -> str:
        raise AssertionError("not before the length is known")

    monkeypatch.setattr(names, "fold", fold)
    monkeypatch.setattr(email_addresses, "fold", fold)
    assert refused(rule("a" + "\u0327\u0301" * 8000))


@given(st.text())
def test_what_is_taken_can_be_stored(text: str) -> None:
    """Whatever comes in, nothing raises, and what comes out fits its column and is UTF-8 without U+0000."""
    for rule, longest in ((account_rules.username, 50), (account_rules.email, 255), (account_rules.avatar_url, 500)):
        value = rule(text)
        if isinstance(value, str):
            assert len(value) <= longest
            assert b"\x00" not in value.encode()
