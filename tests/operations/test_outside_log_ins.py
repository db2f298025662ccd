"""The request that redeems a code, and its answer. Whole log-ins are in tests/web/routes/test_outside.py."""

import base64
from urllib.parse import parse_qs

import pytest

from scoreboard.drivers.https_client import Answer, RequestFailure
from scoreboard.operations.oidc_metadata import ProviderMetadata
from scoreboard.operations.outside_issuers import OidcClient
from scoreboard.operations.outside_log_ins import (
    FAULT_REFUSALS,
    LogInFault,
    read_id_token,
    token_request,
)

METADATA = ProviderMetadata("https://a.example/a", "https://a.example/t", "")


async def no_metadata() -> None:
    return None


def client(secret: str = "") -> OidcClient:
    return OidcClient("my client", secret, "https://board.example/cb", ("openid",), no_metadata)


def test_a_secret_goes_into_a_header() -> None:
    """Both parts are encoded first, so that a colon in the client's name moves nothing (RFC 6749 section 2.3.1)."""
    sent = token_request(client("p:w ä"), METADATA, "c", "v")
    scheme, _, value = sent["headers"]["authorization"].partition(" ")
    assert (scheme, base64.b64decode(value)) == ("Basic", b"my%20client:p%3Aw%20%C3%A4")
    assert parse_qs(sent["content"].decode()) == {
        "grant_type": ["authorization_code"],
        "code": ["c"],
        "redirect_uri": ["https://board.example/cb"],
        "code_verifier": ["v"],
    }


def test_a_public_client_names_itself() -> None:
    sent = token_request(client(), METADATA, "c", "v")
    assert "authorization" not in sent["headers"]
    assert parse_qs(sent["content"].decode())["client_id"] == ["my client"]
    assert b"client_secret" not in sent["content"]


def test_a_secret_in_the_body() -> None:
    sent = token_request(client("pw"), METADATA._replace(takes_secret_in_body=True), "c", "v")
    assert "authorization" not in sent["headers"]
    assert parse_qs(sent["content"].decode())["client_secret"] == ["pw"]


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (Answer(200, {}, b'{"id_token": "a.b.c", "access_token": "secret"}'), "a.b.c"),
        (Answer(200, {}, b'{"id_token": ""}'), (LogInFault.REFUSED, "status 200, no ID token")),
        (Answer(200, {}, b'{"id_token": null}'), (LogInFault.REFUSED, "status 200, no ID token")),
        (Answer(200, {}, b"[]"), (LogInFault.REFUSED, "status 200, no ID token")),
        (Answer(200, {}, b"\xff"), (LogInFault.REFUSED, "status 200, no ID token")),
        (Answer(200, {}, b"[" * 60_000), (LogInFault.REFUSED, "status 200, no ID token")),
        (Answer(201, {}, b'{"id_token": "a.b.c"}'), (LogInFault.REFUSED, "status 201, no ID token")),
        (Answer(302, {"location": "/"}, b'{"id_token": "a.b.c"}'), (LogInFault.REFUSED, "status 302, no ID token")),
        (Answer(401, {}, b'{"error": "invalid_client"}'), (LogInFault.REFUSED, "status 401, invalid_client")),
        (Answer(400, {}, b'{"error": "a\\nb"}'), (LogInFault.REFUSED, "status 400, an error code that is not known")),
        (Answer(503, {}, b""), (LogInFault.UNAVAILABLE, "status 503, no ID token")),
        (RequestFailure("no answer within 4 s"), (LogInFault.UNAVAILABLE, "no answer within 4 s")),
    ],
)
def test_answers_of_a_token_endpoint(answer: Answer | RequestFailure, result: object) -> None:
    """The reason is for the log: it has a provider's error code if that is a known one, and no other text of it."""
    assert read_id_token(answer) == result


def test_every_fault_has_its_words() -> None:
    assert set(FAULT_REFUSALS) == set(LogInFault)
