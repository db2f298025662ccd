"""What must never be in a log line: a secret, in whatever shape it gets there; and what must stay readable."""

import base64
import html
import importlib
import inspect
import json
import pkgutil
from dataclasses import fields, is_dataclass
from typing import Any
from urllib.parse import quote, quote_plus, urlencode
from uuid import UUID

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import scoreboard
from scoreboard.security import device_cookies, refresh_tokens, signatures
from scoreboard.security.server_keys import make_key
from scoreboard.telemetry.redaction import MAX_TEXT_LENGTH, SECRET_FIELD, redact, redact_text

NAMES = (
    *(
        "token",
        "accessToken",
        "refresh_token",
        "password",
        "PASSWORD",
        "passwd",
        "pgpassword",
        "password_hash",
        "actionSecret",
        "secret",
    ),
    *(
        "api_key",
        "master_keys",
        "signing-key",
        "scoreboard_refresh",
        "__Secure-scoreboard_refresh",
        "scoreboard_device",
        "client_secret",
    ),
)
# What a secret may be made of. A marker that nothing else contains stands at its beginning, in the middle and at its
# end.
MARK = "Zq9"
characters = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12)
secrets = st.builds(lambda one, two: f"{MARK}{one}{MARK}{two}{MARK}", characters, characters)
bare = st.builds(lambda one, two: f"{MARK}{one}{MARK}{two}{MARK}", *[st.text("abcXYZ019-_.~+/=", max_size=12)] * 2)

QUOTED = {
    "JSON": lambda name, secret: json.dumps({"a": 1, name: secret, "b": 2}),
    "JSON in JSON": lambda name, secret: json.dumps({"body": json.dumps({name: secret, "b": 2})}),
    "JSON in JSON in JSON": lambda name, secret: json.dumps([json.dumps({"body": json.dumps({name: secret})})]),
    "a dict": lambda name, secret: str({name: secret, "b": 2}),
    "a dict of bytes": lambda name, secret: str({name.encode(): secret.encode(), "b": 2}),
    "a pair": lambda name, secret: str([("a", "b"), (name, secret)]),
    "a pair of bytes": lambda name, secret: str([(b"a", b"b"), (name.encode(), secret.encode())]),
    "an object": lambda name, secret: f"Thing(a=1, {name.replace('-', '_')}={secret!r}, b=2)",
    "bytes": lambda name, secret: repr(json.dumps({name: secret}).encode()),
    "a list": lambda name, secret: str({name: [secret, secret]}),
    "a table": lambda name, secret: f"{name}: { ({1: secret.encode()})!r}",
    "a form": lambda name, secret: urlencode({"a": 1, name: secret, "b": 2}),
    "a query": lambda name, secret: f"GET /live?{quote(name)}={quote(secret, safe='')}&x=1 HTTP/1.1",
    "a form in a form": lambda name, secret: quote_plus(urlencode({name: secret})),
    "JSON in a query": lambda name, secret: quote(json.dumps({name: secret})),
    "JSON in HTML": lambda name, secret: html.escape(
        json.dumps({name: secret.replace("&", "").replace("'", "").replace('"', "")})
    ),
    "a message": lambda name, secret: f"bad {name}: {secret.replace('&', '')}",
    "an assignment": lambda name, secret: f"export {name}={secret.replace('&', '')}",
    "a subscript": lambda name, secret: f"config['{name}'] = {secret!r}",
}
BARE = {
    "a cookie": lambda secret: f"Cookie: a=b; scoreboard_refresh={secret}; c={secret}",
    "a cookie that is set": lambda secret: f"set-cookie: __Secure-scoreboard_refresh={secret}; Path=/",
    "a head": lambda secret: str([(b"cookie", f"a={secret}; scoreboard_device={secret}".encode()), (b"host", b"x")]),
    "a head as JSON": lambda secret: json.dumps({"headers": {"Cookie": f'a="{secret}"; b={secret}', "x": 1}}),
    "an authorization": lambda secret: f"authorization: Digest username={secret}, response={secret}",
    "a bearer": lambda secret: f"Bearer {secret}",
    "PostgreSQL": lambda secret: (
        f"cannot connect to postgresql://user:{quote(secret, safe='')}@db:5432/scoreboard?sslmode=require now"
    ),
    "PostgreSQL, not encoded": lambda secret: f"cannot connect to 'postgresql://user:{secret}@/@@db/x'",
    "Redis": lambda secret: f"redis://:{quote(secret, safe='')}@cache/0",
    "Redis, not encoded": lambda secret: f"rediss://default:a/b@{secret}@cache:6379/0 is away",
    "a DSN": lambda secret: f"host=db user=x password={secret} dbname=y",
}


@settings(max_examples=400, deadline=None)
@example(secret=f'{MARK}"{MARK}', name="password", shape="JSON in JSON")
@example(secret=f"{MARK}'\"\\{MARK}", name="password", shape="a dict")
@example(secret=f"{MARK}&{MARK}", name="token", shape="JSON in a query")
@given(secret=secrets, name=st.sampled_from(NAMES), shape=st.sampled_from(sorted(QUOTED)))
def test_a_named_secret_never_leaves(secret: str, name: str, shape: str) -> None:
    """Quoted, escaped, encoded, as bytes, in whatever a program prints."""
    text = QUOTED[shape](name, secret)
    assert MARK in text
    assert MARK not in redact_text(f"begin {text} end"), (text, redact_text(text))


@settings(max_examples=300, deadline=None)
@given(secret=bare, shape=st.sampled_from(sorted(BARE)))
def test_a_secret_in_its_usual_place_never_leaves(secret: str, shape: str) -> None:
    """Cookies, headers, URLs of stores whose password has an @ or a / that should have been encoded."""
    text = BARE[shape](secret)
    assert MARK not in redact_text(f"begin {text}\nend"), (text, redact_text(text))
    assert redact_text(f"begin {text}\nend").endswith("end")  # nothing is taken of the lines after it


def test_what_is_ours_is_known_without_a_name() -> None:
    """A refresh token, an action secret, a device cookie, a master key, a password's hash, a private key."""
    user, key = UUID(int=7), b"\x07k" * 16
    for secret in (
        refresh_tokens.make(key, user, b"v" * 32),
        signatures.action_secret(key, user, user),
        device_cookies.make(key, user, b"n" * 16),
        base64.b64encode(bytes(range(32))).decode(),
        "$argon2id$v=19$m=65536,t=3,p=4$Xfs8jLTKVaQTcRQ3EXKnXQ$HHm+Qb8/B6yRoy1wkwCHHbgCefs8zEQooLprDlB6QZA",
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA\n-----END PRIVATE KEY-----",
    ):
        for text in (secret, f"got '{secret}'", f"({secret})", f"a={secret};"):
            assert secret not in redact_text(text)
            assert "MC4CAQAwBQYDK2VwBCIEIA" not in redact_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "GET /api/v1/scores/leaderboard?limit=10 took 12 ms",
        "postgresql: connection to 127.0.0.1:5432 refused",
        "http://127.0.0.1:8000/api/v1/scores/live",
        "refresh_token_reused",
        "the token was not accepted",
        'File "/root/.pyenv/versions/3.11.7/lib/python3.11/site-packages/Trio_x/_core/_run_of_A_task.py", line 12',
        "request 0198f2c5d6e07d5b8f6c1d2e3f4a5b6c of 3f2b8c1e-0000-4000-8000-000000000001",
        "a total of 12 keys: 7 were older",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """An operator reads what happened."""
    assert redact_text(text) == text


def test_only_the_value_is_taken() -> None:
    """What stands beside it stays."""
    assert redact_text('{"a": 1, "password": "x", "b": 2}') == '{"a": 1, "password": [redacted], "b": 2}'
    assert redact_text("GET /live?token=abc&x=1 HTTP/1.1") == "GET /live?token=[redacted]&x=1 HTTP/1.1"
    assert redact_text("Login(name='a', password='b', at=3)") == "Login(name='a', password=[redacted], at=3)"
    assert redact_text("at redis://u:p@q@host/0 now") == "at redis://u:[redacted]@host/0 now"


def test_fields_are_taken_by_their_names() -> None:
    """Of nested values and of header fields too."""
    event = {
        "refresh_tokens": ["x"],
        "headers": [("Cookie", "y"), (b"cookie", b"y"), ("a", "b")],
        "deep": {"dbPassword": 7},
        "user": "ada",
    }
    assert redact(None, "info", event) == {
        "refresh_tokens": "[redacted]",
        "headers": [["Cookie", "[redacted]"], ["cookie", "[redacted]"], ["a", "b"]],
        "deep": {"dbPassword": "[redacted]"},
        "user": "ada",
    }


def test_a_long_text_is_cut() -> None:
    """In its middle, as a traceback's reason stands at its end; nothing is left of the line that was cut."""
    lines = [f"line {number}" for number in range(MAX_TEXT_LENGTH)] + ["ValueError: the reason"]
    cut = redact_text("\n".join(lines))
    assert len(cut) <= MAX_TEXT_LENGTH + 10
    assert cut.startswith("line 0\n")
    assert cut.endswith("\nValueError: the reason")
    _, _, rest = cut.partition(" [cut]\n")
    assert set(rest.split("\n")) <= set(lines)
    assert redact_text("x " * MAX_TEXT_LENGTH).endswith("[cut]\n")


# ---- reprs ----------------------------------------------------------------------------------------------------------

PUBLIC = {"scoreboard.web.schemas"}  # what only describes
# Names of fields besides those that log lines know.
HOLDS_A_SECRET = ("url", "postgres_url", "redis_url", "signing", "verifying", "master", "devices")


def field_names(kind: type) -> list[str]:
    """All fields of a value type."""
    if issubclass(kind, msgspec.Struct):
        return list(kind.__struct_fields__)
    if is_dataclass(kind):
        return [field.name for field in fields(kind)]
    return list(kind._fields) if issubclass(kind, tuple) and hasattr(kind, "_fields") else []


def is_secret(name: str) -> bool:
    return bool(SECRET_FIELD.fullmatch(name)) or name in HOLDS_A_SECRET


def values() -> list[type]:
    """All our value types with a field that holds a secret."""
    modules = [module.name for module in pkgutil.walk_packages(scoreboard.__path__, "scoreboard.")]
    found = {
        kind
        for name in modules
        if name != "scoreboard.__main__"  # it would run
        for _, kind in inspect.getmembers(importlib.import_module(name), inspect.isclass)
        if kind.__module__.startswith("scoreboard.")
        and kind.__module__ not in PUBLIC
        and any(map(is_secret, field_names(kind)))
    }
    return sorted(found, key=lambda kind: f"{kind.__module__}.{kind.__qualname__}")


@pytest.mark.parametrize("kind", values(), ids=lambda kind: f"{kind.__module__}.{kind.__qualname__}")
def test_a_repr_hides_secrets(kind: type[Any]) -> None:
    """Of every value that has one: whatever prints it, the secret stays."""
    names = field_names(kind)
    planted = {name: f"{MARK}{name}" for name in names}
    if issubclass(kind, msgspec.Struct) or not is_dataclass(kind):
        made = kind(**planted)
    else:
        made = object.__new__(kind)
        for name, value in planted.items():
            object.__setattr__(made, name, value)
    for name in names:
        if is_secret(name):
            assert planted[name] not in repr(made)
            assert planted[name] not in str(made)
            assert planted[name] not in f"{[made]}"


def test_a_server_key_keeps_its_id() -> None:
    """So a line tells which key it is about, and not what the key is."""
    key = make_key("0123456789ab", bytes(range(32)))
    for text in (key, f"refused {key}!", f'["{key}"]', key[:40]):
        shown = redact_text(text)
        assert "sbk_0123456789ab_[redacted]" in shown
        assert key[17:30] not in shown
    assert key[17:30] not in redact_text(f"Authorization: Bearer {key}")
