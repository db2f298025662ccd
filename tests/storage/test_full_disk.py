"""A disk that is really full: both embedded servers on a small file system of their own. Needs the right to mount
one."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from scoreboard.domain.errors import StorageUnavailable, StoreCondition
from scoreboard.drivers.stores import open_stores
from scoreboard.embedded import stack as embedded
from scoreboard.storage.postgres.migrate import migrate
from tests.storage.test_health import monitoring, until

DISK = "400m"  # both servers' files take about 80 MB
ROWS = """
INSERT INTO users (username, email)
SELECT gen_random_uuid(), gen_random_uuid() || repeat('x', 150) FROM generate_series(1, 5000)"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=755", "tmpfs", folder], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(path: Path) -> None:
    """Takes all that is left."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            pass


async def test_a_full_disk(small_disk: Path) -> None:
    """Known from the first write that found no room until one finds some; PostgreSQL and what it has stay readable."""
    async with embedded.running(small_disk) as endpoints:
        await migrate(endpoints.postgres_url)
        async with open_stores(endpoints.postgres_url, endpoints.redis_url) as stores, monitoring(stores) as monitor:
            await stores.execute(ROWS)
            count = await stores.fetchval("SELECT count(*) FROM users")
            await trio.to_thread.run_sync(fill, small_disk / "ballast")
            with trio.fail_after(30), pytest.raises(StorageUnavailable) as raised:
                while True:
                    await stores.execute(ROWS)
                    count += 5000
            assert raised.value.condition is StoreCondition.FULL
            assert monitor.conditions["postgresql"] is StoreCondition.FULL
            await trio.sleep(2.5)
            # nobody writes, and it is known all the same
            assert monitor.conditions["postgresql"] is StoreCondition.FULL
            assert await stores.fetchval("SELECT count(*) FROM users") == count
            (small_disk / "ballast").unlink()
            await until(monitor)
            await stores.execute(ROWS)
