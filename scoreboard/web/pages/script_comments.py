"""Removes comments from scripts before they are served, so that visitors do not load them. Pure.

Only comments that fill whole lines go: `//` lines and `/** … */` blocks. Each becomes empty lines, so that the line
numbers of an error are those of the file. The price is that no template literal of ours may have such a line; a test
compares what a compiler makes of both.
"""

import re

COMMENT_LINES = re.compile(rb"^[ \t]*(?://.*|/\*\*(?:[^*]|\*(?!/))*\*/[ \t]*)$", re.MULTILINE)


def without_comments(script: bytes) -> bytes:
    """The script with its comment lines emptied."""
    return COMMENT_LINES.sub(lambda comment: b"\n" * comment[0].count(b"\n"), script)
