"""Passwords: argon2id, salted, and no shorter work for an account that does not exist."""

import sys

import pytest
from argon2 import PasswordHasher, Type, extract_parameters

from scoreboard.security import passwords


def test_a_hash_is_argon2id_with_a_salt_of_its_own() -> None:
    """The same password twice gives two hashes, and both are verified by it alone."""
    first, second = passwords.hash_password("correct horse"), passwords.hash_password("correct horse")
    assert first != second
    assert extract_parameters(first).type is Type.ID
    assert passwords.verify(first, "correct horse")
    assert not passwords.verify(first, "correct horsf")
    assert not passwords.is_outdated(first)


@pytest.mark.parametrize("stored", ["", "plain", "$argon2id$v=19$m=65536,t=3,p=4$YWJj", "$2b$12$abc"])
def test_what_is_stored_and_no_hash_lets_nobody_in(stored: str) -> None:
    """A damaged row refuses, it does not fail."""
    assert not passwords.verify(stored, "anything")


def test_no_account_costs_the_same_work_and_lets_nobody_in() -> None:
    """The hash compared with for nobody has the parameters of a real one, so time does not tell."""
    assert extract_parameters(passwords.DUMMY_HASH) == extract_parameters(passwords.hash_password("x"))
    assert not passwords.verify(None, "anything")


def test_a_hash_of_weaker_parameters_is_outdated() -> None:
    """It still verifies, and says that it should be made anew."""
    weak = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash("correct horse")
    assert passwords.verify(weak, "correct horse")
    assert passwords.is_outdated(weak)


@pytest.mark.parametrize("password", ["1234567890", "qwertyuiop", "Password123", "QWERTYUIOP", "1q2w3e4r5t"])
def test_the_most_used_passwords_are_known(password: str) -> None:
    """In any case."""
    assert passwords.is_common(password)


@pytest.mark.parametrize(
    "password", ["correct horse battery", "scoreboard-demo", "a long password", "motörhead forever", ""]
)
def test_other_passwords_are_not_common(password: str) -> None:
    """Those of the demo and of these tests are among them."""
    assert not passwords.is_common(password)


def test_the_list_is_all_there() -> None:
    """At least the 10,000 most used ones; the package that has it is not imported for it."""
    assert len(passwords._common()) >= 10_000
    assert "zxcvbn.matching" not in sys.modules
