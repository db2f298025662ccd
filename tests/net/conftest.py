"""Fixtures of the tests that replace os.write; those of http use them too."""

from collections.abc import Callable, Iterator

import pytest

from scoreboard.net import sockets
from tests.net.pairs import Write


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Write], None]]:
    """Puts a function in the place of os.write."""

    def replace(write: Write) -> None:
        monkeypatch.setattr(sockets, "_write", write)

    yield replace
    monkeypatch.undo()
