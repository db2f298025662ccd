"""Open stores for the tests of drivers, as those of storage have them."""

from tests.storage.conftest import stores

__all__ = ["stores"]
