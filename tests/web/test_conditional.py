"""Conditional requests without a server; with one they are tested in test_handlers_agree."""

import pytest

from scoreboard.web.conditional import conditional, is_unmodified, matches_etag, tagged
from scoreboard.web.responses import JSON
from tests.web.requests import request

MODIFIED = b"last-modified: Sat, 10 Jan 2026 10:30:01 GMT\r\n"


@pytest.mark.parametrize(
    ("given", "current"),
    [
        (b'"a"', True),
        (b'W/"a"', True),
        (b'"b", "a"', True),
        (b'"b",W/"a" ', True),
        (b"*", True),
        (b'"b"', False),
        (b"a", False),
        (b"", False),
        (b'"A"', False),
    ],
)
def test_if_none_match_is_a_list_of_tags(given: bytes, current: bool) -> None:
    """Compared weakly, as RFC 9110 has it for this header."""
    assert matches_etag(request((b"if-none-match", given)), b'"a"') is current


def test_an_answer_that_the_client_has_is_304_with_the_fields_for_caches() -> None:
    """Without a body and without the JSON's content type."""
    response, etag = tagged(b"{}", JSON + b"cache-control: no-cache\r\n")
    assert conditional(request(), response, etag) is response
    assert conditional(request((b"if-none-match", b'"other"')), response, etag) is response
    current = conditional(request((b"if-none-match", etag)), response, etag)
    assert (current.status, current.body) == (304, b"")
    assert current.fields == b"cache-control: no-cache\r\netag: %b\r\n" % etag


@pytest.mark.parametrize(
    ("since", "unmodified"),
    [
        (b"Sat, 10 Jan 2026 10:30:01 GMT", True),
        (b"Sat Jan 10 10:30:02 2026", True),
        (b"Sat, 10 Jan 2026 10:30:00 GMT", False),
        (b"yesterday", False),
    ],
)
def test_a_later_date_means_unmodified(since: bytes, unmodified: bool) -> None:
    """Unless an ETag is named too: that counts alone."""
    assert is_unmodified(request((b"if-modified-since", since)), MODIFIED) is unmodified
    assert not is_unmodified(request((b"if-modified-since", since)), b"")
    assert not is_unmodified(request((b"if-modified-since", since), (b"if-none-match", b'"x"')), MODIFIED)
