"""The README's way in for a game's own server: its program does what the README says, against a real node."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.e2e.nodes import ServerProcess

README = (Path(__file__).parent.parent.parent / "README.md").read_text()
SECTION = README[README.index("### A board for my game") :]


def block(language: str) -> str:
    """The first block of the section in that language."""
    found = re.search(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)
    assert found
    return found[1]


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_the_readmes_game_scores(loop: str, start_node: Callable[..., ServerProcess]) -> None:
    """The user of its commands is made, the program prints the points and the board; on Trio after the change that the README names."""
    node = start_node()
    created = re.search(r'users create (\S+) (\S+) .*<<<"(.*)"', block("bash"))
    assert created
    name, email, password = created.groups()
    body = {"username": name, "email": email, "password": password}
    assert httpx.post(f"{node.url}/api/v1/auth/register", json=body).status_code == httpx.codes.CREATED
    program = block("python").replace("http://127.0.0.1:8000", node.url)
    if loop == "trio":
        program = (
            program.replace("import asyncio", "import trio")
            .replace("client.asyncio import", "client import")
            .replace("asyncio.run(main())", "trio.run(main)")
        )
    with subprocess.Popen([sys.executable, "-u", "-c", program], stdout=subprocess.PIPE, text=True) as game:
        assert game.stdout
        try:
            lines = [game.stdout.readline()]
            while f"{name} 100" not in lines[-1]:  # the first board may be older than the action
                lines.append(game.stdout.readline())
                assert lines[-1], lines
        finally:
            game.kill()
    assert lines[0] == "+100, now number 1\n"
    assert lines[-1] == f"1. {name} 100\n"
