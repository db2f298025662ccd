"""Responses that are compressed once; with a server they are tested in test_application."""

import gzip

import pytest

from scoreboard.web.compression import accepts_gzip, compressed
from tests.web.requests import request

FIELDS = b"content-type: text/plain\r\nvary: accept-encoding\r\n"


@pytest.mark.parametrize(
    ("accepted", "gzipped"),
    [
        (b"gzip", True),
        (b"br, GZIP;q=0.8", True),
        (b"gzip;q=0", False),
        (b"gzip;q=0.000, br", False),
        (b"br", False),
        (b"", False),
        (b"x-gzip", False),
        (b",".join([b"br"] * 16 + [b"gzip"]), False),
    ],
)
def test_gzip_is_sent_to_those_who_accept_it(accepted: bytes, gzipped: bool) -> None:
    """A weight of zero says no; of a long list only the first codings are read."""
    assert accepts_gzip(request((b"accept-encoding", accepted))) is gzipped


def test_both_forms_are_the_same_content_under_two_etags() -> None:
    """A client that has one form gets 304 for that form alone."""
    content = b"a" * 1000
    both = compressed(content, FIELDS)
    plain, packed = both.respond(request()), both.respond(request((b"accept-encoding", b"gzip")))
    assert (plain.body, gzip.decompress(packed.body)) == (content, content)
    assert b"content-encoding: gzip\r\n" in packed.fields
    assert b"content-encoding" not in plain.fields
    assert both.plain.etag != both.gzipped.etag
    assert both.respond(request((b"if-none-match", both.plain.etag))).status == 304
    has_plain = request((b"accept-encoding", b"gzip"), (b"if-none-match", both.plain.etag))
    assert both.respond(has_plain) is packed
