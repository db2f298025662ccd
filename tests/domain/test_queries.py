"""Query strings: what is within the bounds is read, what is beyond them is not taken apart."""

from scoreboard.domain.queries import MAX_QUERY_BYTES, MAX_QUERY_FIELDS, OUT_OF_BOUNDS, check_parameters, parse_query


def test_values_are_read_in_order() -> None:
    """Repeated and blank ones too; bytes that are no UTF-8 raise nothing."""
    assert parse_query(b"a=1&b=&a=%32&c") == {"a": ["1", "2"], "b": [""], "c": [""]}
    assert parse_query(b"") == {}
    assert parse_query(b"%ff=\xff&%zz") is not None


def test_what_is_longer_or_has_more_fields_is_none() -> None:
    """To the byte and to the field."""
    assert parse_query(b"a=" + b"x" * (MAX_QUERY_BYTES - 2)) is not None
    assert parse_query(b"a=" + b"x" * (MAX_QUERY_BYTES - 1)) is None
    assert parse_query(b"&".join([b"a=1"] * MAX_QUERY_FIELDS)) is not None
    assert parse_query(b"&".join([b"a=1"] * (MAX_QUERY_FIELDS + 1))) is None
    assert parse_query(b"&" * MAX_QUERY_BYTES) is None


def refused(query: bytes) -> tuple[str, str] | None:
    """The field that a query is refused for, and why."""
    refusal = check_parameters(query, frozenset({"limit", "token"}))
    return (refusal.errors[0].field, refusal.errors[0].message) if refusal else None


def test_the_first_unknown_parameter_is_named() -> None:
    """Decoded and cut."""
    assert refused(b"") is None
    assert refused(b"limit=1&token=x&%6cimit=2") is None
    assert refused(b"limit=1&a=2&b=3") == ("a", "is not known here")
    assert refused(b"=1") == ("", "is not known here")
    assert refused(b"token=x&%00" + b"y" * 100) == ("?" + "y" * 49, "is not known here")


def test_a_query_beyond_the_bounds_is_refused_whatever_its_names() -> None:
    """More fields than are read hide no parameter."""
    for query in (
        b"a=" + b"x" * MAX_QUERY_BYTES,
        b"limit=" + b"1" * MAX_QUERY_BYTES,
        b"&".join([b"limit=1"] * (MAX_QUERY_FIELDS + 1)),
    ):
        assert refused(query) == ("query", OUT_OF_BOUNDS.errors[0].message)
    assert refused(b"&".join([b"limit=1"] * MAX_QUERY_FIELDS)) is None
