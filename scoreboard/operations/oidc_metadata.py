"""What an OpenID Provider publishes about itself (OpenID Connect Discovery, RFC 8414). Pure.

`parse_metadata` compares the document's issuer with the configured one: a document of another issuer could send
browsers to one server and their codes to another (mix-up).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

DISCOVERY_PATH = "/.well-known/openid-configuration"
MAX_METADATA_BYTES = 65_536  # the largest in use have some 10 kB
MAX_ADDRESS_LENGTH = 2048


class MetadataError(ValueError):
    """The document is not the configured issuer's, or lacks something. The message says what."""


class ProviderMetadata(NamedTuple):
    """The members that a log-in needs; "" for an address that is not stated."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    names_issuer: bool = False  # its answers to browsers have `iss` (RFC 9207)
    takes_secret_in_body: bool = False  # it does not take it in a header, which is the default

    def __repr__(self) -> str:
        return "ProviderMetadata()"  # an address of the settings may have a key in its query


def discovery_url(issuer: str) -> str:
    """Where an issuer's document is."""
    return issuer.removesuffix("/") + DISCOVERY_PATH


def parse_metadata(content: bytes, issuer: str, check_url: Callable[[str], str | None]) -> ProviderMetadata:
    """The document of `issuer`. `check_url` says what is wrong with an address. Raises MetadataError."""
    try:
        document = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MetadataError("is not JSON") from None
    if not isinstance(document, dict):
        raise MetadataError("is no object")
    if document.get("issuer") != issuer:
        raise MetadataError("is the document of another issuer")
    methods = document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    methods = methods if isinstance(methods, list) else []
    return ProviderMetadata(
        _address(document, "authorization_endpoint", check_url),
        _address(document, "token_endpoint", check_url),
        _address(document, "jwks_uri", check_url),
        names_issuer=document.get("authorization_response_iss_parameter_supported") is True,
        takes_secret_in_body="client_secret_post" in methods and "client_secret_basic" not in methods,
    )


def _address(document: dict[str, Any], name: str, check_url: Callable[[str], str | None]) -> str:
    value = document.get(name, "")
    if not isinstance(value, str) or len(value) > MAX_ADDRESS_LENGTH:
        raise MetadataError(f"{name} is no address")
    if value and (wrong := check_url(value)):
        raise MetadataError(f"{name} {wrong}")
    return value
