"""Query strings: what is within the bounds is read, what is beyond them is not taken apart."""

from scoreboard.domain.queries import QUERY_BYTES, QUERY_FIELDS, parse_query, unknown_parameter


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


def test_the_first_unknown_parameter_is_named() -> None:
    """Decoded and cut; a query beyond the bounds names none, as it is refused for that."""
    known = frozenset({"limit", "token"})
    assert unknown_parameter(b"", known) is None
    assert unknown_parameter(b"limit=1&token=x&%6cimit=2", known) is None
    assert unknown_parameter(b"limit=1&a=2&b=3", known) == "a"
    assert unknown_parameter(b"=1", known) == ""
    assert unknown_parameter(b"token=x&%00" + b"y" * 100, known) == "?" + "y" * 49
    assert unknown_parameter(b"a=" + b"x" * QUERY_BYTES, known) is None
