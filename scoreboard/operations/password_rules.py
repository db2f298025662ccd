"""The rules for a new password, and the refusal that names the fields that break a rule.

Tested in tests/operations/test_accounts.py.
"""

from collections.abc import Iterable

import trio

from scoreboard.domain import account_rules
from scoreboard.domain.errors import Code, FieldError, Refusal
from scoreboard.security import passwords


async def check_password(password: str, own_words: Iterable[str], *, field: str = "password") -> str | FieldError:
    """The password as it is hashed. `own_words`: the user's name and e-mail address, which it must not be."""
    words = [word for own in own_words for word in (own, own.partition("@")[0])]
    secret = account_rules.password(password, words, field=field)
    if not isinstance(secret, FieldError) and await trio.to_thread.run_sync(passwords.is_common, secret):
        return FieldError(field, "must not be one of the most used passwords")
    return secret


def invalid(errors: list[FieldError]) -> Refusal:
    """400 INVALID_REQUEST that names the fields."""
    return Refusal(Code.INVALID_REQUEST, "; ".join(f"{error.field} {error.message}" for error in errors), tuple(errors))
