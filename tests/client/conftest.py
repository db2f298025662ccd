"""The client's tests start nodes as end-to-end tests do, and run for the client on Trio and for the one on asyncio."""

from types import ModuleType

import pytest

import scoreboard.client
import scoreboard.client.asyncio
from tests.e2e.conftest import start_node

__all__ = ["client", "start_node"]


@pytest.fixture(params=[scoreboard.client, scoreboard.client.asyncio], ids=["trio", "asyncio"])
def client(request: pytest.FixtureRequest) -> ModuleType:
    """The client under test."""
    module: ModuleType = request.param
    return module
