"""Kinds of values that settings have, with their checks, for pydantic; and `Section`, the base of all sections.

A check raises ValueError, whose message follows the name of the key. Tested in tests/settings/test_model.py.
"""

import json
import math
from collections.abc import Callable, Container
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr


def number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number")  # noqa: TRY004 – pydantic wants ValueError; it would take true for 1
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


def limit(value: object) -> object:
    """0 or false switches a limit off."""
    if value is False or (isinstance(value, str) and value.strip().lower() in {"false", "off", "no"}):
        return 0
    return number(value)


def as_list(value: object) -> object:
    """A list; a text from the environment is JSON, or separated by commas."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [item.strip() for item in value.split(",") if item.strip()]


WEB_SCHEMES = frozenset({"http", "https"})
# The schemes in the `Origin` of WebViews of apps and of browser extensions: Capacitor, Ionic, Tauri, Chromium, Firefox,
# Safari.
APP_SCHEMES = frozenset({"capacitor", "ionic", "tauri", "chrome-extension", "moz-extension", "safari-web-extension"})
ORIGIN_SCHEMES = WEB_SCHEMES | APP_SCHEMES
APPS = f"; of an app its scheme is one of {', '.join(sorted(APP_SCHEMES))}"


def web_origin(value: str, schemes: Container[str] = WEB_SCHEMES) -> str:
    parts = urlsplit(value)
    if (
        parts.scheme not in schemes
        or not parts.hostname
        or parts.path.strip("/")
        or parts.query
        or parts.fragment
        or parts.username
    ):
        raise ValueError(
            f"must look like https://board.example, without a path{APPS if schemes is ORIGIN_SCHEMES else ''}"
        )
    _ = parts.port  # raises ValueError when it is none
    return f"{parts.scheme}://{parts.netloc}".lower()


def app_origin(value: str) -> str:
    return web_origin(value, ORIGIN_SCHEMES)


def network(value: object) -> object:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    try:
        return ip_network(value if isinstance(value, str) else "")  # ip_network would accept a number
    except ValueError:
        raise ValueError("must be an address or a network such as 10.0.0.0/8, without bits of a host") from None


def filled_path(value: object) -> object:
    if value == "":
        raise ValueError("must not be empty")  # pathlib would read it as the current folder
    return value


def access_lines(value: object) -> object:
    """Which requests are logged."""
    if isinstance(value, str):
        value = value.strip().lower()
        value = int(value) if value.isdecimal() else value
    if value is False or value in {"false", "no"}:  # other ways to write "off"
        return "off"
    if value in {"off", "errors", "all"} or (
        isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10**9
    ):
        return value
    raise ValueError('must be "off", "errors", "all", or a number N: one request in N')


def url_of(*schemes: str) -> Callable[[SecretStr], SecretStr]:
    def check(value: SecretStr) -> SecretStr:
        if value.get_secret_value() and urlsplit(value.get_secret_value()).scheme not in schemes:
            raise ValueError("must begin with " + " or ".join(f"{scheme}://" for scheme in schemes))
        return value

    return check


Whole = Annotated[int, BeforeValidator(number)]
Seconds = Annotated[float, BeforeValidator(number), Field(allow_inf_nan=False)]
Limit = Annotated[int, BeforeValidator(limit), Field(ge=0, le=10**9)]


class Section(BaseModel):
    """The base of all sections: frozen, without unknown keys; error messages never quote the input."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
