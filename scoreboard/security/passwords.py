"""Passwords: argon2id hashes, and the list of the most used passwords.

A hash takes 35 to 150 ms and 64 MiB, so callers hash and verify in a thread, with a limiter. Salts are random. `verify`
without a hash takes as long as with one, so its time does not show whether an account exists. The first call of
`is_common` loads a module of zxcvbn, so it is called in a thread, too.
"""

import unicodedata
from functools import cache
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec, module_from_spec, spec_from_loader
from pathlib import Path

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

_HASHER = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)  # argon2id, 3 passes over 64 MiB, 4 lanes
# The hash of unknown random bytes, with the parameters above. A log-in without an account is compared with it.
DUMMY_HASH = "$argon2id$v=19$m=65536,t=3,p=4$Xfs8jLTKVaQTcRQ3EXKnXQ$HHm+Qb8/B6yRoy1wkwCHHbgCefs8zEQooLprDlB6QZA"

# Of zxcvbn: 30,000 passwords from breaches, the most used ones first. Only this module is loaded, since the package
# builds tables of 90,000 words at import.
_LISTS = "frequency_lists"


def hash_password(password: str) -> str:
    """A salted hash in PHC form."""
    return _HASHER.hash(_bytes(password))


def verify(stored: str | None, password: str) -> bool:
    """Whether the password is the stored one; False, after the same time, when nothing is stored."""
    try:
        _HASHER.verify(stored or DUMMY_HASH, _bytes(password))
    except (VerificationError, InvalidHashError):
        return False
    return stored is not None


def _bytes(password: str) -> bytes:
    """The password in UTF-8, equal for every composition of the same characters (RFC 8265: NFC)."""
    # "surrogatepass": a terminal may send bytes that are no text
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")


def is_outdated(stored: str) -> bool:
    """Whether a hash has other parameters than today's. Then it should be replaced at the next log-in."""
    return extract_parameters(stored) != RFC_9106_LOW_MEMORY


def is_common(password: str) -> bool:
    """Whether the password, case ignored, is one of the 30,000 most used ones. The first call takes some
    milliseconds."""
    return unicodedata.normalize("NFC", password).casefold() in _common()


@cache
def _common() -> frozenset[str]:
    package = find_spec("zxcvbn")
    assert package is not None
    assert package.submodule_search_locations is not None
    loader = SourceFileLoader(_LISTS, str(Path(package.submodule_search_locations[0]) / f"{_LISTS}.py"))
    spec = spec_from_loader(_LISTS, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return frozenset(module.FREQUENCY_LISTS["passwords"])
