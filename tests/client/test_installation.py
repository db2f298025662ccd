"""The client is installed by itself: from the wheel, with its own dependencies and none of the server's.

The wheel is built and unpacked into a folder, and the packages that it names are linked beside it. A Python that sees
this folder and nothing else is what `pip install scoreboard` gives, without asking an index.
"""

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent.parent
Python = Callable[..., subprocess.CompletedProcess[str]]

LAYERS = (
    "import scoreboard.client, sys; "
    "print(*{name.split('.')[1] for name in sys.modules if name.startswith('scoreboard.')})"
)


def required(requires: list[str], extra: str = "") -> set[str]:
    """The distributions that these requirements bring, with all that they need themselves."""
    found: set[str] = set()
    waiting = [(Requirement(text), extra) for text in requires]
    while waiting:
        requirement, of_extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": of_extra}):
            continue
        if (name := canonicalize_name(requirement.name)) not in found:
            found.add(name)
            waiting += [
                (Requirement(text), inner)
                for text in distribution(requirement.name).requires or []
                for inner in ("", *requirement.extras)
            ]
    return found


def link(name: str, folder: Path) -> None:
    """Puts an installed distribution's packages into another folder."""
    installed = distribution(name)
    for part in {file.parts[0] for file in installed.files or []} - {"..", "__pycache__"}:
        if not (folder / part).exists():
            (folder / part).symlink_to(str(installed.locate_file(part)))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this clone."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Python]:
    """Installs the wheel with one extra, or none: a Python that sees that alone."""

    def make(extra: str = "") -> Python:
        folder = tmp_path_factory.mktemp("site")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        (info,) = folder.glob("scoreboard-*.dist-info")
        for name in required(Distribution.at(info).requires or [], extra):
            link(name, folder)
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SCOREBOARD_"))
        }

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-S", "-W", "error", *arguments]
            return subprocess.run(
                command,
                cwd=folder.parent,
                env=environment | {"PYTHONPATH": str(folder)},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )

        return run

    return make


@pytest.fixture(scope="module")
def client_alone(install: Callable[[str], Python]) -> Python:
    """What `pip install scoreboard` gives."""
    return install("")


def test_the_client_needs_none_of_the_servers_packages(client_alone: Python) -> None:
    """It is imported where nothing but its own dependencies is installed, and imports nothing of the server's
    layers."""
    done = client_alone("-c", LAYERS)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {"client", "domain", "security"}


HOOK = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"the client asks for {name}", name=name)

sys.meta_path.insert(0, Refuse())
import scoreboard.client, scoreboard.client.asyncio
"""


def test_the_client_asks_for_no_package_of_the_server_where_it_is_there() -> None:
    """In a fresh interpreter whose imports of the server's packages fail, both clients are imported all the same."""
    requires = [str(text) for text in distribution("scoreboard").requires or []]
    servers = required(requires, "server") - required(requires, "asyncio")
    top = {
        file.parts[0].removesuffix(".py")
        for name in servers
        for file in distribution(name).files or []
        if file.suffix in {".py", ".so"}
    }
    assert {"asyncpg", "redis", "cryptography", "quart", "click", "trio_asyncio"} <= top
    done = subprocess.run([sys.executable, "-c", HOOK, *top], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    refused = subprocess.run(
        [sys.executable, "-c", HOOK, "msgspec"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "the client asks for msgspec" in refused.stderr


def test_asyncio_is_an_extra(client_alone: Python, install: Callable[[str], Python]) -> None:
    """Without it the import says in its last line what to install, with it the import works."""
    code = "import scoreboard.client.asyncio"
    without = client_alone("-c", code)
    assert without.stderr.splitlines()[-1].endswith(
        "scoreboard.client.asyncio needs websockets: pip install 'scoreboard[asyncio]'"
    )
    assert install("asyncio")("-c", code).returncode == 0


@pytest.mark.parametrize("arguments", [[], ["serve"], ["users", "create", "ada", "ada@example.org"], ["--version"]])
def test_commands_without_the_server_say_what_to_install(client_alone: Python, arguments: list[str]) -> None:
    """One line, exit 2, no traceback."""
    done = client_alone("-m", "scoreboard", *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("scoreboard: the server is not installed")
    assert line.endswith("pip install 'scoreboard[server]'")


def test_a_command_that_is_broken_is_not_called_missing() -> None:
    """A module of ours that is not there is a bug, and is shown as one."""
    code = "import sys; sys.modules['scoreboard.cli.main'] = None; from scoreboard.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr


def test_the_wheel_is_typed(wheel: Path) -> None:
    """Type checkers read our annotations from what is installed (PEP 561)."""
    with zipfile.ZipFile(wheel) as archive:
        assert "scoreboard/py.typed" in archive.namelist()


def test_the_extras_are_what_they_are_called(wheel: Path, tmp_path: Path) -> None:
    """`server` is what a node needs, `embedded` and `dev` contain it, and the client alone has none of it."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    (info,) = tmp_path.glob("scoreboard-*.dist-info")
    requires = Distribution.at(info).requires or []
    named = {
        extra: {Requirement(text).name for text in requires if f"extra == '{extra}'" in text}
        for extra in ("server", "embedded", "dev")
    }
    alone = {Requirement(text).name for text in requires if "extra ==" not in text}
    assert alone == {"certifi", "h11", "httpx", "msgspec", "sniffio", "trio", "trio-websocket", "wsproto"}
    assert {"asyncpg", "redis", "trio-asyncio", "click"} <= named["server"]
    assert not named["server"] & alone
    assert named["server"] < named["embedded"]
    assert named["server"] | {"websockets"} < named["dev"]
