"""Discovery documents: what is read, and what is refused."""

import json
from typing import Any

import pytest

from scoreboard.drivers.https_client import check_url
from scoreboard.operations.oidc_metadata import MetadataError, ProviderMetadata, discovery_url, parse_metadata

ISSUER = "https://accounts.example"
DOCUMENT = {
    "issuer": ISSUER,
    "authorization_endpoint": "https://accounts.example/authorize",
    "token_endpoint": "https://api.example/token",
    "jwks_uri": "https://api.example/keys",
}


def parsed(**changes: Any) -> ProviderMetadata:
    return parse_metadata(json.dumps(DOCUMENT | changes).encode(), ISSUER, check_url)


def test_the_address_of_a_document() -> None:
    """A slash at the issuer's end is not doubled (OpenID Connect Discovery, section 4)."""
    assert discovery_url(ISSUER) == "https://accounts.example/.well-known/openid-configuration"
    assert discovery_url(ISSUER + "/t/") == "https://accounts.example/t/.well-known/openid-configuration"


def test_a_document_is_read() -> None:
    """Endpoints of other hosts are as good: the document came from the issuer."""
    assert parsed() == ProviderMetadata(
        DOCUMENT["authorization_endpoint"], DOCUMENT["token_endpoint"], DOCUMENT["jwks_uri"]
    )
    assert parsed(authorization_response_iss_parameter_supported=True).names_issuer
    assert not parsed(authorization_response_iss_parameter_supported="true").names_issuer
    assert parsed(token_endpoint="").token_endpoint == ""


@pytest.mark.parametrize(
    ("methods", "in_body"),
    [
        (["client_secret_post"], True),
        (["client_secret_post", "client_secret_basic"], False),
        (["private_key_jwt"], False),
        ([], False),
        ("client_secret_post", False),
    ],
)
def test_how_the_secret_is_sent(methods: object, *, in_body: bool) -> None:
    """In a header, unless the provider takes it in the body alone."""
    assert parsed(token_endpoint_auth_methods_supported=methods).takes_secret_in_body is in_body


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "https://accounts.example/"},
        {"issuer": "https://evil.example"},
        {"issuer": None},
        {"jwks_uri": "http://api.example/keys"},
        {"token_endpoint": "file:///etc/passwd"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "https://accounts.example/a#x"},
        {"authorization_endpoint": "https://accounts.example/\r\nset-cookie: a=b"},
        {"token_endpoint": 5},
        {"token_endpoint": "https://accounts.example/" + "x" * 2048},
    ],
)
def test_documents_that_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MetadataError):
        parsed(**changes)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"<html>", b"\xff", b"[" * 60_000])
def test_what_is_no_document(content: bytes) -> None:
    with pytest.raises(MetadataError):
        parse_metadata(content, ISSUER, check_url)
