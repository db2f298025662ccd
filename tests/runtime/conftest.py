"""Fixtures of the front's tests."""

from collections.abc import Callable, Iterator

import pytest

from scoreboard.runtime import sockets


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[int, bytes], int]], None]]:
    """Puts a function in the place of os.write; os.writev follows it."""

    def put(write: Callable[[int, bytes], int]) -> None:
        monkeypatch.setattr(sockets, "_write", write)
        monkeypatch.setattr(sockets, "_writev", lambda fd, parts: write(fd, b"".join(parts)))

    yield put
    monkeypatch.undo()
