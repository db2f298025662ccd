"""What a browser brings to a provider and back."""

from urllib.parse import parse_qs, urlsplit

import pytest

from scoreboard.operations.authorization_answers import (
    MAX_ANSWER_BYTES,
    AuthorizationAnswer,
    authorization_url,
    is_answer_to,
    is_from,
    read_answer,
)
from scoreboard.security.log_in_attempts import LogInAttempt

ATTEMPT = LogInAttempt("state-1", "nonce-1", "v" * 43)
ISSUER = "https://accounts.example"


def test_an_answer_is_read() -> None:
    """Known parameters are read, others are ignored, whatever is not there is None."""
    query = b"code=a%2Bb&state=s&session_state=x&iss=https%3A%2F%2Faccounts.example"
    assert read_answer(query) == AuthorizationAnswer("a+b", "s", None, ISSUER)
    assert read_answer(b"error=access_denied&error_description=no") == AuthorizationAnswer(error="access_denied")
    assert read_answer(b"") == AuthorizationAnswer()


@pytest.mark.parametrize(
    "query",
    [
        b"code=a&code=b",
        b"state=a&code=c&state=a",
        b"x=1&x=1",
        b"code=" + b"a" * MAX_ANSWER_BYTES,
        b"&".join(b"p%d=1" % n for n in range(17)),
        b"code=\xff",
    ],
)
def test_an_answer_beyond_the_bounds_is_none(query: bytes) -> None:
    """A repeated parameter too: two readers could take different ones."""
    assert read_answer(query) is None


def test_an_answer_belongs_to_its_attempt() -> None:
    assert is_answer_to(AuthorizationAnswer("c", "state-1"), ATTEMPT)
    for state in (None, "", "state-2", "STATE-1", "state-1 ", "ä"):
        assert not is_answer_to(AuthorizationAnswer("c", state), ATTEMPT)


def test_an_answer_names_its_issuer() -> None:
    """RFC 9207: a name must be right, and must be there where the issuer says that it gives one."""
    named, unnamed = AuthorizationAnswer("c", "s", None, ISSUER), AuthorizationAnswer("c", "s")
    assert is_from(named, ISSUER, names_issuer=False)
    assert is_from(named, ISSUER, names_issuer=True)
    assert is_from(unnamed, ISSUER, names_issuer=False)
    assert not is_from(unnamed, ISSUER, names_issuer=True)
    assert not is_from(named, "https://accounts.example/", names_issuer=False)
    assert not is_from(AuthorizationAnswer("c", "s", None, ""), ISSUER, names_issuer=False)


@pytest.mark.parametrize("endpoint", ["https://accounts.example/a", "https://accounts.example/a?tenant=x%20y"])
def test_the_address_has_no_secret(endpoint: str) -> None:
    """State, nonce and challenge are in it, and never the verifier. A query of the endpoint stays."""
    url = authorization_url(
        endpoint, ATTEMPT, client_id="a b", redirect_uri="https://b.example/c", scopes=("openid", "x")
    )
    assert url.startswith(endpoint)
    assert ATTEMPT.verifier not in url
    query = parse_qs(urlsplit(url).query)
    assert (query["client_id"], query["scope"], query["nonce"]) == (["a b"], ["openid x"], ["nonce-1"])
    assert query["code_challenge"] == [ATTEMPT.challenge]


def test_an_answer_hides_its_code() -> None:
    assert "c0de" not in repr(AuthorizationAnswer("c0de", "s"))
