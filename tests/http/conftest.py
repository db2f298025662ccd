"""Fixtures of the front's tests."""

from collections.abc import Callable, Iterator

import pytest

from scoreboard.http.connection import Connection
from tests.http.application import Application, Way
from tests.net.conftest import writes

__all__ = ["every_way", "left_over", "writes"]


@pytest.fixture(params=[Way.FAST, Way.DEFERRED, Way.TASK, Way.TRIO], ids=lambda way: way.value)
def every_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Applications in this test are asked in each of the ways in turn."""
    monkeypatch.setattr(Application, "way", request.param)


@pytest.fixture
def left_over(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Calls what is in the list, once each, at the moment in which requests were left over to a connection's task that
    has not run yet."""
    calls: list[object] = []
    at_once = Connection._at_once

    def observed(connection: Connection) -> bool:
        done = at_once(connection)
        if not done and calls:
            calls.pop()(connection)  # type: ignore[operator]
        return done

    monkeypatch.setattr(Connection, "_at_once", observed)
    yield calls
    assert not calls
