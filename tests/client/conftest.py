"""The client's tests start nodes as end-to-end tests do."""

from tests.e2e.conftest import start_node

__all__ = ["start_node"]
