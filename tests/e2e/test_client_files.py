"""The page's modules as files: the client's size, and what TypeScript says of all of them."""

import gzip
import json
import shutil
import subprocess
from pathlib import Path

import pytest

STATIC = Path(__file__).parents[2] / "scoreboard" / "web" / "static"
TSC = shutil.which("tsc")


def test_the_client_stays_small() -> None:
    """scoreboard.js is under 13 kB as it stands; with all that it fetches to watch and to act, under 8 as it travels."""
    files = [(STATIC / f"{name}.js").read_bytes() for name in ("scoreboard", "fallback", "actions")]
    assert len(files[0]) < 13_000
    assert sum(len(gzip.compress(file)) for file in files) < 8_000


@pytest.mark.skipif(TSC is None, reason="no TypeScript compiler on this machine (npm install --global typescript)")
def test_types_are_right(tmp_path: Path) -> None:
    """TypeScript, strict, has no objection to any module of the page."""
    assert TSC is not None
    options = {
        "allowJs": True,
        "checkJs": True,
        "noEmit": True,
        "strict": True,
        "noUnusedLocals": True,
        "target": "es2024",
        "lib": ["es2024", "dom", "dom.iterable", "dom.asynciterable"],
        "module": "esnext",
        "moduleResolution": "bundler",
        "types": [],
    }
    project = tmp_path / "tsconfig.json"
    project.write_text(json.dumps({"compilerOptions": options, "files": sorted(map(str, STATIC.glob("*.js")))}))
    checked = subprocess.run([TSC, "--project", str(project)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
