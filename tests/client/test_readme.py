"""The README's way in for a game's own server: its program does what the README says, against a real node."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.e2e.server_processes import ServerProcess

README = (Path(__file__).parent.parent.parent / "README.md").read_text()
SECTION = README[README.index("### A board for my game") :]


def block(language: str) -> str:
    """The first block of the section in that language."""
    found = re.search(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)
    assert found
    return found[1]


def test_the_readmes_game_scores(start_node: Callable[..., ServerProcess]) -> None:
    """The user of its commands is made, the program prints the points and the board; then so on Trio, with the change
    that it names."""
    node = start_node()
    created = re.search(r'users create (\S+) (\S+) .*<<<"(.*)"', block("bash"))
    assert created
    name, email, password = created.groups()
    body = {"username": name, "email": email, "password": password}
    assert httpx.post(f"{node.url}/api/v1/auth/register", json=body).status_code == httpx.codes.CREATED
    program = block("python").replace("http://127.0.0.1:8000", node.url)
    on_trio = program.replace("client.asyncio import", "client import").replace("asyncio.run(main())", "trio.run(main)")
    assert play(program, f"1. {name} 100\n") == "+100, now number 1\n"
    assert play(on_trio.replace("import asyncio", "import trio"), f"1. {name} 200\n") == "+100, now number 1\n"


def play(program: str, board: str) -> str:
    """Runs the program until it prints this board; the first line that it printed."""
    with subprocess.Popen([sys.executable, "-u", "-c", program], stdout=subprocess.PIPE, text=True) as game:
        assert game.stdout
        try:
            lines = [game.stdout.readline()]
            while lines[-1] != board:  # the first board may be older than the action
                lines.append(game.stdout.readline())
                assert lines[-1], lines
        finally:
            game.kill()
    return lines[0]
