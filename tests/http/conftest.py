"""Fixtures of the HTTP server's tests."""

from collections.abc import Iterator

import pytest

from scoreboard.http.connection import Connection
from tests.http.application import Application, HandledBy
from tests.net.conftest import writes

__all__ = ["every_way", "left_over", "writes"]


@pytest.fixture(params=[HandledBy.FAST, HandledBy.DEFERRED, HandledBy.TASK, HandledBy.TRIO], ids=lambda way: way.value)
def every_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the test once for each way in which requests are handled."""
    monkeypatch.setattr(Application, "handled_by", request.param)


@pytest.fixture
def left_over(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Calls each function of the list once, when requests are left to a connection's task that has not run yet."""
    calls: list[object] = []
    on_readable = Connection._on_readable

    def observed(connection: Connection) -> bool:
        done = on_readable(connection)
        if not done and calls:
            calls.pop()(connection)  # type: ignore[operator]
        return done

    monkeypatch.setattr(Connection, "_on_readable", observed)
    yield calls
    assert not calls
