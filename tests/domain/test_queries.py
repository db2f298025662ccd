"""Query strings: what is within the bounds is read, what is beyond them is not taken apart."""

from scoreboard.domain.queries import QUERY_BYTES, QUERY_FIELDS, parse_query


def test_values_are_read_in_order() -> None:
    """Repeated and blank ones too; bytes that are no UTF-8 raise nothing."""
    assert parse_query(b"a=1&b=&a=%32&c") == {"a": ["1", "2"], "b": [""], "c": [""]}
    assert parse_query(b"") == {}
    assert parse_query(b"%ff=\xff&%zz") is not None


def test_what_is_longer_or_has_more_fields_is_none() -> None:
    """To the byte and to the field."""
    assert parse_query(b"a=" + b"x" * (QUERY_BYTES - 2)) is not None
    assert parse_query(b"a=" + b"x" * (QUERY_BYTES - 1)) is None
    assert parse_query(b"&".join([b"a=1"] * QUERY_FIELDS)) is not None
    assert parse_query(b"&".join([b"a=1"] * (QUERY_FIELDS + 1))) is None
    assert parse_query(b"&" * QUERY_BYTES) is None
