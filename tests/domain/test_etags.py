"""Entity tags."""

import re

from scoreboard.domain.etags import strong_etag


def test_a_tag_is_of_exactly_these_bytes() -> None:
    """Quoted, not weak, without a character that a list of tags could be split at; another byte gives another one."""
    tag = strong_etag(b"board")
    assert re.fullmatch(rb'"[0-9a-f]{32}"', tag)
    assert tag == strong_etag(b"board") != strong_etag(b"Board")
