"""What a browser brings to an OpenID Provider and back: the address that a log-in begins with, and the answer (RFC 6749
section 4.1, RFC 9207). Pure."""

import hmac
from typing import NamedTuple
from urllib.parse import parse_qs, urlencode

from scoreboard.security.log_in_attempts import LogInAttempt

MAX_ANSWER_BYTES = 8192  # of the query; the longest codes in use have 2 kB
MAX_ANSWER_FIELDS = 16  # six are known; providers add some of their own, such as session_state
MAX_CODE_LENGTH = 4096


class AuthorizationAnswer(NamedTuple):
    """The parameters of an answer; None for one that is not there. `error` is an error code of the provider."""

    code: str | None = None
    state: str | None = None
    error: str | None = None
    iss: str | None = None

    def __repr__(self) -> str:
        return "AuthorizationAnswer()"  # a code opens a session


def read_answer(query: bytes) -> AuthorizationAnswer | None:
    """The answer in a query. None for one that is beyond the bounds or repeats a parameter: two readers could take
    different ones."""
    if len(query) > MAX_ANSWER_BYTES:
        return None
    try:
        found = parse_qs(query.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_ANSWER_FIELDS)
    except ValueError:  # of UnicodeDecodeError too
        return None
    if any(len(values) > 1 for values in found.values()):
        return None
    return AuthorizationAnswer(*(found.get(name, [None])[0] for name in AuthorizationAnswer._fields))


def is_answer_to(answer: AuthorizationAnswer, attempt: LogInAttempt) -> bool:
    """Whether the answer is the one to this attempt, and not to one that another browser or window has begun."""
    return answer.state is not None and hmac.compare_digest(answer.state.encode(), attempt.state.encode())


def is_from(answer: AuthorizationAnswer, issuer: str, *, names_issuer: bool) -> bool:
    """Whether the answer may be this issuer's. `names_issuer`: the issuer has said that its answers have its name."""
    return not names_issuer if answer.iss is None else answer.iss == issuer


def authorization_url(
    endpoint: str, attempt: LogInAttempt, *, client_id: str, redirect_uri: str, scopes: tuple[str, ...]
) -> str:
    """Where the browser is sent. A query that the endpoint has stays."""
    fields = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "scope": " ".join(scopes),
        "state": attempt.state,
        "nonce": attempt.nonce,
        "code_challenge": attempt.challenge,
        "code_challenge_method": "S256",
    }
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(fields)}"
