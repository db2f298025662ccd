"""Query strings of API routes, read within bounds: what is longer or has more fields is refused before it is taken apart. Pure."""

from urllib.parse import parse_qs

QUERY_BYTES = 1024  # a token has some 430, a position 30
QUERY_FIELDS = 16  # the routes know six

TOO_LONG = f"must have at most {QUERY_BYTES} bytes and {QUERY_FIELDS} fields"


def parse_query(query: bytes) -> dict[str, list[str]] | None:
    """The values of each name, in their order, blank ones included; None beyond the bounds."""
    if len(query) > QUERY_BYTES:
        return None
    try:
        return parse_qs(query.decode("latin-1"), keep_blank_values=True, max_num_fields=QUERY_FIELDS)
    except ValueError:
        return None
