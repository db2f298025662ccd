"""The body of an action: decoded strictly, whatever bytes come."""

import json
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scoreboard.domain.actions import Action, EvidenceClaim, is_own_action, is_timely, parse_action, parse_timestamp
from scoreboard.domain.errors import Code, Refusal

GOOD = {
    "actionId": "a-1",
    "actionType": "quiz_complete",
    "timestamp": "2026-01-10T10:30:00Z",
    "metadata": {"difficulty": "hard"},
}
AT = 1_768_041_000_000  # that time in Unix milliseconds
USER = UUID("0196f0aa-0000-7000-8000-00000000000a")


def body(**changes: object) -> bytes:
    """The good body with fields changed; a field that becomes ... is left out."""
    return json.dumps({name: value for name, value in (GOOD | changes).items() if value is not ...}).encode()


def refused(raw: bytes) -> str:
    """The field that the refusal names."""
    found = parse_action(raw)
    assert isinstance(found, Refusal)
    assert found.code is Code.INVALID_ACTION
    return found.errors[0].field


def test_a_good_body_is_an_action() -> None:
    """Every field arrives, the metadata also as the JSON text that is stored."""
    assert parse_action(body()) == Action("a-1", "quiz_complete", AT, {"difficulty": "hard"}, '{"difficulty":"hard"}')
    assert parse_action(body(metadata=...)) == Action("a-1", "quiz_complete", AT, None, None)


def test_a_start_and_evidence_are_read() -> None:
    """Both are optional. The start's id is compared by the database, which knows it or not."""
    claim = {"sha256": "ab" * 32, "size": 262_144}
    found = parse_action(body(startId="0196f0aa-0000-7000-8000-00000000000a", evidence=claim, userId=str(USER)))
    assert isinstance(found, Action)
    assert found.start == "0196f0aa-0000-7000-8000-00000000000a"
    assert found.evidence == EvidenceClaim("ab" * 32, 262_144)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"startId": 5}, "startId"),
        ({"startId": "x" * 37}, "startId"),
        ({"evidence": "ab" * 32}, "evidence"),
        ({"evidence": {"sha256": "ab" * 32}}, "evidence"),
        ({"evidence": {"sha256": "AB" * 32, "size": 1}}, "evidence"),
        ({"evidence": {"sha256": "ab" * 31, "size": 1}}, "evidence"),
        ({"evidence": {"sha256": "ab" * 32, "size": 0}}, "evidence"),
        ({"evidence": {"sha256": "ab" * 32, "size": 262_145}}, "evidence"),
        ({"evidence": {"sha256": "ab" * 32, "size": 1, "url": "https://a.example/"}}, "evidence"),
        ({"actionId": ...}, "body"),
        ({"actionId": 7}, "actionId"),
        ({"actionId": ""}, "actionId"),
        ({"actionId": "x" * 101}, "actionId"),
        ({"actionType": ""}, "actionType"),
        ({"actionType": "x" * 51}, "actionType"),
        ({"actionType": None}, "actionType"),
        ({"timestamp": 1768041000}, "timestamp"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"timestamp": "2026-01-10T10:30:00"}, "timestamp"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {"note": "\0"}}, "body"),
        ({"userId": 5}, "userId"),
        ({"points": 1000}, "body"),
    ],
)
def test_a_bad_field_is_refused_by_name(changes: dict[str, object], field: str) -> None:
    """Missing, mistyped, too long, without a zone, unknown: 400 that says which."""
    assert refused(body(**changes)) == field


@pytest.mark.parametrize(
    "raw",
    [
        body().replace(b'"actionId": "a-1"', b'"actionId": "a-1", "actionId": "a-2"'),
        body().replace(b'"actionId": "a-1"', b'"actionId": "a-1", "action\\u0049d": "a-1"'),
        body(metadata={"a": 1}).replace(b'"a": 1', b'"a": 1, "a": 1'),
        body(metadata={"a": {"b": [{"c": 1}]}}).replace(b'"c": 1', b'"c": 1, "c": 2'),
        body(metadata={"a": "\\", "b": "\\"}).replace(b'"a"', b'"a": 1, "a"'),
        body(metadata=None).replace(b"null", b'null, "metadata": null'),
        body(userId="x").replace(b'"userId"', b'"userId": "y", "userId"'),
    ],
)
def test_a_name_stands_once(raw: bytes) -> None:
    """Two readers of one body must not read two different actions."""
    assert refused(raw) == "body"


_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=4), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(
    metadata=st.none() | st.dictionaries(st.sampled_from("abc"), _values),
    user=st.sampled_from([..., None, str(USER)]),
    escaped=st.booleans(),
)
def test_different_names_are_no_repetition(metadata: object, user: object, escaped: bool) -> None:
    """Whatever the metadata hold, quotes and backslashes in texts too, a body without a repeated name is read."""
    fields = GOOD | {"metadata": metadata} | ({} if user is ... else {"userId": user})
    assert isinstance(parse_action(json.dumps(fields, ensure_ascii=escaped).encode()), Action)


def test_nesting_is_bounded_by_a_number() -> None:
    """32 levels are read, 33 are not, on every Python; many containers side by side are not deep."""
    nested = b"[" * 31 + b"1" + b"]" * 31
    assert isinstance(parse_action(body(metadata={"a": 0}).replace(b"0}", nested + b"}")), Action)
    assert refused(body(metadata={"a": 0}).replace(b"0}", b"[" + nested + b"]}")) == "metadata"
    assert isinstance(parse_action(body(metadata={"a": [[1]] * 100})), Action)


def test_lengths_count_characters() -> None:
    """100 characters are 100 characters, however many bytes they take: so counts PostgreSQL."""
    assert isinstance(parse_action(body(actionId="🏆" * 100, actionType="ß" * 50)), Action)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"\xef\xbb\xbf" + body(),  # a byte order mark
        body()[:-1],
        body() + b"{}",
        body().replace(b"a-1", b"\xff\xfe"),
        body().replace(b"a-1", b"\xed\xa0\x80"),  # a surrogate in UTF-8
        body().replace(b"a-1", b"\\ud800"),
        body().replace(b"a-1", b"\\udc00\\ud800"),
        body().replace(b"a-1", b"\\u0000"),
        body().replace(b"a-1", b"a\0b"),
        body().replace(b'"hard"', b"NaN"),
        body().replace(b'"hard"', b"1e999"),
        body().replace(b'"hard"', b"9" * 5_000),
        body().replace(b'"hard"', b"[" * 8_000 + b"]" * 8_000),
    ],
)
def test_what_cannot_be_read_or_kept_is_refused(raw: bytes) -> None:
    """Whatever JSON, UTF-8, PostgreSQL or the stack cannot hold is 400."""
    assert isinstance(parse_action(raw), Refusal)


def test_any_depth_is_refused_or_ready_to_store() -> None:
    """What is accepted is encoded already: no depth gets through that fails later, in the middle of a batch."""
    for depth in range(600, 1_100):
        found = parse_action(body().replace(b'"hard"', b"[" * depth + b"]" * depth))
        assert isinstance(found, Refusal) or found.metadata_json == '{"difficulty":' + "[" * depth + "]" * depth + "}"


@given(
    st.binary()
    | st.recursive(st.none() | st.text() | st.floats() | st.integers(), lambda inner: st.lists(inner)).map(
        lambda v: json.dumps(v).encode()
    )
)
@example(b'{"actionId":"\\')
def test_no_bytes_raise(raw: bytes) -> None:
    """Any bytes at all are an action or a refusal."""
    assert isinstance(parse_action(raw), Action | Refusal)


@given(
    st.dictionaries(
        st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
        st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_metadata_is_kept_as_it_came(metadata: dict[str, float]) -> None:
    """The stored text says the same as the body."""
    found = parse_action(body(metadata=metadata))
    if isinstance(found, Refusal):  # of text that holds \u0000 behind a backslash, more than a body may
        assert "\\u0000" in json.dumps(metadata)
    else:
        assert msgspec.json.decode(found.metadata_json or "") == found.metadata == metadata


@given(
    st.datetimes(datetime.fromisoformat("1970-01-02"), datetime.fromisoformat("2200-01-01")),
    st.integers(-14 * 60, 14 * 60),
)
def test_a_time_is_the_same_in_every_zone(moment: datetime, minutes: int) -> None:
    """The offset is taken into account, to the millisecond."""
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000, tzinfo=UTC)
    expected = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    assert parse_timestamp(moment.astimezone(timezone(timedelta(minutes=minutes))).isoformat()) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-01-10",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "2026-13-01T00:00:00Z",
        "2" * 41,
        "９" * 20,
    ],
)
def test_what_is_no_time_is_none(text: str) -> None:
    """Not a time, out of the calendar, or without a zone: None."""
    assert parse_timestamp(text) is None


def test_the_bounds_of_a_timestamp() -> None:
    """Five minutes back and one ahead are the last that pass, to the millisecond."""
    now = 1_000_000_000
    assert [is_timely(now + offset, now) for offset in (-300_001, -300_000, 0, 60_000, 60_001)] == [
        False,
        True,
        True,
        True,
        False,
    ]


def test_the_body_may_name_only_the_tokens_subject() -> None:
    """Without userId anybody's; with it that user's alone, in whatever case."""
    named = [parse_action(body(userId=text)) for text in (str(USER), str(USER).upper(), str(UUID(int=1)), "")]
    assert [isinstance(action, Action) and is_own_action(action, USER) for action in named] == [
        True,
        True,
        False,
        False,
    ]
    unnamed = parse_action(body())
    assert isinstance(unnamed, Action)
    assert is_own_action(unnamed, USER)


def test_a_repeated_name_is_refused_beside_a_start_and_evidence() -> None:
    """The quick test by the number of quotes counts these fields too."""
    whole = body(startId="a", evidence={"sha256": "ab" * 32, "size": 1}).decode()
    assert isinstance(parse_action(whole.encode()), Action)
    for once, twice in (
        ('"startId": "a"', '"startId": "b", "startId": "a"'),
        ('"size": 1', '"size": 2, "size": 1'),
        ('"evidence":', '"evidence": null, "evidence":'),
    ):
        assert once in whole
        assert refused(whole.replace(once, twice).encode()) == "body"
