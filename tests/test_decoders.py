"""Every decoder of the product has a property test: no bytes make it raise what its caller does not expect.

The decoders are found in the product: msgspec decoders in the modules, and calls of decoding functions in the source.
A new one fails here until it has a property test, or a reason why its input is our own.
"""

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scoreboard
from scoreboard.domain.errors import Refusal
from scoreboard.drivers.https_client import Answer
from scoreboard.operations.oidc_metadata import MetadataError, ProviderMetadata, parse_metadata
from scoreboard.operations.personal_data import read_place
from scoreboard.operations.webhooks import read_answer
from scoreboard.web import json_body
from scoreboard.web.routes.auth import COOKIES_READ, DEVICE_COOKIE, REFRESH_COOKIE, read_cookies
from tests.web.requests import request

ROOT = Path(__file__).parent.parent
PRODUCT = ROOT / "scoreboard"
BODIES = "scoreboard.web.routes."  # the decoders of bodies are all tested below, by themselves
NOT_SERVED = (
    "scoreboard.cli.",
    "scoreboard.client.",
    "scoreboard.embedded.",
)  # of the operator's, or the client's side

# Decoders that are no body's, and the property test of each.
TESTED = {
    "scoreboard.domain.actions._decode_body": "tests/domain/test_actions.py",
    "scoreboard.domain.bulk_actions._decode_body": "tests/domain/test_bulk_actions.py",
    "scoreboard.domain.bulk_actions._decode_item": "tests/domain/test_bulk_actions.py",
    "scoreboard.domain.client_messages._decode_message": "tests/domain/test_client_messages.py",
    "scoreboard.domain.log_records._decode": "tests/domain/test_log_records.py",
    "scoreboard.operations.outside_log_ins._decode_answer": "tests/test_decoders.py",
    "scoreboard.operations.webhooks._decode": "tests/test_decoders.py",
    "scoreboard.storage.bus._decode_events": "tests/storage/test_bus.py",
    "scoreboard.storage.bus._decode_rejected": "tests/storage/test_bus.py",
    "scoreboard.web.pages.error_pages._decode": "reads what web.problems wrote in the same process",
}
# Modules that call a decoding function, and the property test, or why their input is our own.
CALLS = {
    "domain/action_rules.py": "reads the operator's file; tests/domain/test_action_rules.py has its errors",
    "domain/actions.py": "tests/domain/test_actions.py",
    "operations/admin/import_files.py": "tests/operations/admin/test_import_files.py",
    "operations/log_check.py": "tests/operations/test_log_check.py",
    "operations/oidc_metadata.py": "tests/test_decoders.py",
    "operations/send_messages.py": "decodes what it encoded in the line before",
    "security/key_sets.py": "tests/security/test_key_sets.py",
    "security/outside_tokens.py": "tests/security/test_outside_tokens.py",
    "security/tokens.py": "tests/security/test_tokens.py",
    "settings/keys.py": "reads a file of the data folder",
    "settings/sources.py": "reads the operator's environment",
    "settings/values.py": "reads the operator's settings",
    "storage/postgres/audit_events.py": "a column that this server wrote",
    "storage/postgres/flags.py": "a column that this server wrote",
    "storage/postgres/moderated_users.py": "a column that this server wrote",
    "storage/postgres/outgoing_messages.py": "a column that this server wrote",
    "storage/postgres/personal_data.py": "a column that this server wrote, of type jsonb",
    "storage/postgres/reversals.py": "a column that this server wrote",
    "web/pages/branding.py": "reads a file of the operator",
    "web/routes/admin/held.py": "a column that this server wrote, of type jsonb",
}
DECODING = {("json", "loads"), ("json", "decode"), ("jwt", "decode"), ("msgspec", "convert"), ("msgpack", "decode")}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=15,
)


def modules() -> Iterator[Any]:
    for found in pkgutil.walk_packages(scoreboard.__path__, "scoreboard."):
        if not found.name.startswith(NOT_SERVED) and not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def decoders() -> dict[str, msgspec.json.Decoder[Any]]:
    """Every decoder that a module of the product has, by its name."""
    found = {}
    for module in modules():
        for name, value in vars(module).items():
            decoder = getattr(value, "__self__", value)
            if isinstance(decoder, msgspec.json.Decoder):
                found[f"{module.__name__}.{name}"] = decoder
    return found


ALL = decoders()
OF_BODIES = {name: decoder for name, decoder in ALL.items() if name.startswith(BODIES)}


def test_every_decoder_has_a_property_test() -> None:
    """Or says why it needs none. What is named exists, and is a property test."""
    assert sorted(set(ALL) - set(OF_BODIES) - set(TESTED)) == [], "add a property test, and name its file in TESTED"
    assert sorted(set(TESTED) - set(ALL)) == []
    assert len(OF_BODIES) > 15


def test_every_call_of_a_decoding_function_has_a_property_test() -> None:
    """The calls are read from the source."""
    calling = set()
    for path in sorted(PRODUCT.rglob("*.py")):
        where = str(path.relative_to(PRODUCT))
        if where.startswith(tuple(folder.removeprefix("scoreboard.").replace(".", "/") for folder in NOT_SERVED)):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                holder = node.func.value
                name = holder.attr if isinstance(holder, ast.Attribute) else getattr(holder, "id", "")
                if (name, node.func.attr) in DECODING:
                    calling.add(where)
    assert sorted(calling - set(CALLS)) == [], "add a property test, or say in CALLS why its input is our own"
    assert sorted(set(CALLS) - calling) == []


@pytest.mark.parametrize("named", sorted({text for text in (*TESTED.values(), *CALLS.values()) if " " not in text}))
def test_what_is_named_is_a_property_test(named: str) -> None:
    """A file of tests with Hypothesis."""
    assert "@given" in (ROOT / named).read_text()


# ---- bodies ---------------------------------------------------------------------------------------------------------


def near(kind: Any) -> st.SearchStrategy[Any]:
    """Objects with the type's own members, and values that may or may not fit."""
    names = [field.encode_name for field in msgspec.structs.fields(kind)]
    values = JSON | st.text(max_size=60) | st.uuids().map(str)
    return st.dictionaries(st.sampled_from(names) | st.text(max_size=8), values, max_size=len(names) + 1)


@pytest.mark.parametrize("name", sorted(OF_BODIES))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_body_is_read_or_refused(name: str, data: st.DataObject) -> None:
    """Bytes, JSON, and objects that nearly fit. What is read is the same after it was written and read again."""
    decoder = OF_BODIES[name]
    encoded = near(decoder.type).map(msgspec.json.encode) | JSON.map(msgspec.json.encode)
    sent = request((b"content-type", b"application/json"))
    sent.body = data.draw(st.binary(max_size=200) | encoded)
    read: Any = json_body.read(sent, decoder)
    if isinstance(read, Refusal):
        assert read.detail
        return
    sent.body = msgspec.json.encode(read)
    assert json_body.read(sent, decoder) == read


# ---- answers of other servers ---------------------------------------------------------------------------------------


@given(st.binary(max_size=200) | near(ALL["scoreboard.operations.webhooks._decode"].type).map(msgspec.json.encode))
def test_any_verdict_gives_points_within_bounds_or_nothing(content: bytes) -> None:
    """A game's server can lower the points and refuse, and nothing else."""
    verdict = read_answer(Answer(200, {}, content), 50)
    assert verdict is None or isinstance(verdict, Refusal) or 1 <= verdict <= 50


METADATA = ("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri", "token_endpoint_auth_methods_supported")


@given(
    st.binary(max_size=100)
    | st.dictionaries(st.sampled_from(METADATA), JSON | st.just("https://id.example"), max_size=5).map(
        msgspec.json.encode
    )
)
def test_any_discovery_document_is_read_or_refused(content: bytes) -> None:
    """With one kind of exception, which its caller expects."""
    try:
        found = parse_metadata(content, "https://id.example", lambda _: None)
    except MetadataError:
        return
    assert isinstance(found, ProviderMetadata)


@given(
    st.binary(max_size=200)
    | near(ALL["scoreboard.operations.outside_log_ins._decode_answer"].type).map(msgspec.json.encode)
)
def test_any_answer_of_a_token_endpoint_is_read_or_refused(content: bytes) -> None:
    """With the exceptions that its caller expects."""
    decoder = ALL["scoreboard.operations.outside_log_ins._decode_answer"]
    try:
        answer = decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    assert isinstance(answer.id_token, str)


# ---- heads ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=60) | st.from_regex(rb"scoreboard_refresh=[A-Za-z0-9_-]{1,20}(; )?"), max_size=80))
def test_any_cookie_field_is_read_within_its_bound(fields: list[bytes]) -> None:
    """Each value once, none empty, and of the alphabet of our tokens."""
    sent = request(*((b"cookie", field) for field in fields))
    for name in (REFRESH_COOKIE, DEVICE_COOKIE):
        found = read_cookies(sent, name)
        assert len(found) == len(set(found)) <= COOKIES_READ
        assert all(value and value.isascii() for value in found)


@given(st.text(max_size=80))
def test_any_cursor_of_the_history_is_read_or_refused(cursor: str) -> None:
    """None is what is no cursor."""
    read_place(cursor)
