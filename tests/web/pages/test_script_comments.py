"""Scripts are served without comment lines, and otherwise unchanged."""

import shutil
import subprocess
from pathlib import Path

import pytest

from scoreboard.web.pages.script_comments import without_comments

STATIC = Path(__file__).parents[3] / "scoreboard" / "web" / "static"
ESBUILD = shutil.which("esbuild")


def test_comment_lines_become_empty_lines() -> None:
    """Lines keep their numbers; a comment behind code, or before it, stays."""
    script = b"/**\n * What.\n */\nlet a; // one\n  // two\n/** @type {B} */ let b = '//';\n/** c */\nc();\n"
    assert without_comments(script) == b"\n\n\nlet a; // one\n\n/** @type {B} */ let b = '//';\n\nc();\n"


def minify(script: bytes) -> bytes:
    """The program without its layout, as a compiler reads it."""
    assert ESBUILD is not None
    done = subprocess.run([ESBUILD, "--minify"], input=script, capture_output=True, check=True)
    return done.stdout


@pytest.mark.skipif(ESBUILD is None, reason="no esbuild on this machine (npm install --global esbuild)")
@pytest.mark.parametrize("name", sorted(path.name for path in STATIC.glob("*.js")))
def test_a_script_stays_the_same_program(name: str) -> None:
    """Every script of the page means the same without its comments."""
    script = (STATIC / name).read_bytes()
    assert minify(without_comments(script)) == minify(script)
