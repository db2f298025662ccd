"""Fault tests start nodes as end-to-end tests do, or share one pair of nodes: starting them must not be most of the
time."""

from collections.abc import Iterator

import pytest

from scoreboard.embedded.stack import Endpoints
from tests.conftest import database
from tests.e2e.conftest import start_node
from tests.faults.servers import Pair, Postgres, Valkey, pair_on, postgres_of_ones_own

__all__ = ["start_node"]


@pytest.fixture(scope="session")
def pair(
    embedded_servers: Endpoints, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """Two nodes on a database of the session's PostgreSQL and a Valkey of their own. After a test that failed the next
    has fresh ones."""
    folder = tmp_path_factory.mktemp("pair")
    valkey = Valkey(folder / "valkey").start()
    try:
        with database(embedded_servers.postgres_url, migrated_template) as url, pair_on(folder, url, valkey) as made:
            yield made
    finally:
        valkey.kill()


@pytest.fixture(scope="module")
def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A PostgreSQL that may be stopped and killed."""
    with postgres_of_ones_own(tmp_path_factory.mktemp("own") / "data") as made:
        yield made
