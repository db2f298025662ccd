"""A process that approves all waiting actions one after the other, until it is killed.

`python -m tests.operations.approver DATABASE_URL REDIS_URL`
"""

import sys

import trio

from scoreboard.drivers.stores import open_stores
from scoreboard.storage.postgres import held_actions
from tests.operations.test_held_actions import running


async def main(database_url: str, redis_url: str) -> None:
    async with open_stores(database_url, redis_url) as stores, running(stores, redis_url) as (node,):
        for row in await held_actions.waiting(stores, 0, 1000):
            await node.approve(row.user, row.action_id)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
