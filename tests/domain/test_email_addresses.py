"""E-mail addresses: one spelling for a mailbox, whichever way it was typed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain import account_rules as profiles
from scoreboard.domain import email_addresses
from scoreboard.domain.errors import FieldError
from scoreboard.domain.skeletons import fold_case


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        *((typed, "j@müller.example") for typed in ("j@müller.example", "j@MÜLLER.example", "j@mu\u0308ller.example")),
        *(
            (typed, "j@müller.example")
            for typed in ("j@xn--mller-kva.example", "j@XN--MLLER-KVA.example", "j@müller。example")
        ),
        *((typed, "a@i❤.ws") for typed in ("a@i❤.ws", "a@xn--i-7iq.ws")),
        ("a@straße.example", "a@straße.example"),
        ("Ada@Example.ORG", "Ada@Example.ORG"),
        ("ａｄａ＠ｅｘａｍｐｌｅ．ｏｒｇ", "ada@example.org"),
        ("ada@localhost", "ada@localhost"),
    ],
)
def test_an_address_has_one_spelling(typed: str, stored: str) -> None:
    """The domain as it is read, whether a browser has encoded it or not; letters of usual width. A plain domain keeps
    its case."""
    assert profiles.email(typed) == stored
    assert email_addresses.fold(stored) == stored


@pytest.mark.parametrize(
    "domain", ["xn--a.example", "xn--", "xn--99999999999.example", "xn--mller-kva-.example", f"xn--{'9' * 200}.example"]
)
def test_what_is_no_encoded_domain_stays_as_it_is(domain: str) -> None:
    """No two domains become one."""
    assert email_addresses.fold(f"a@{domain}") == f"a@{domain}"


@pytest.mark.parametrize("local", ["𝐩hone", "ﬁona", "x²", "ⓟhone"])
def test_letters_in_a_special_form_are_refused_before_the_at(local: str) -> None:
    """There they would be a mailbox beside another one that looks the same."""
    refused = profiles.email(f"{local}@example.org")
    assert isinstance(refused, FieldError)
    assert "special form" in refused.message


def test_an_older_row_may_have_any_of_the_spellings() -> None:
    """First as it was typed: of two accounts from before today's rule each is found by its own."""
    typed = " J@XN--mller-kva.example"
    assert email_addresses.spellings(typed) == (
        "J@XN--mller-kva.example",
        "J@müller.example",
        "J@xn--mller-kva.example",
    )
    assert email_addresses.spellings("ａ@müller.example") == (
        "ａ@müller.example",
        "a@müller.example",
        "a@xn--mller-kva.example",
    )
    assert email_addresses.spellings("Ada@example.org") == ("Ada@example.org",)
    assert email_addresses.query_spellings("xn--mller-kva.example") == ("xn--mller-kva.example", "müller.example")
    assert email_addresses.query_spellings("@müller") == ("@müller", "@xn--mller-kva")


@given(st.text(), st.text(alphabet="xn-üａé.ßXN09\u200d。", max_size=80))
def test_folding_an_address_twice_changes_nothing(local: str, domain: str) -> None:
    """Whatever was typed; and each spelling of an address folds to the same, but for its case."""
    once = email_addresses.fold(f"{local}@{domain}")
    assert email_addresses.fold(once) == once
    assert fold_case(once) in {fold_case(email_addresses.fold(each)) for each in email_addresses.spellings(once)}
