"""Runs the work of a command on open stores.

Tested by tests/cli/test_users.py.
"""

import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click
import trio

from scoreboard.app.accounts import build_accounts
from scoreboard.drivers.stores import Stores
from scoreboard.operations.accounts import Accounts
from scoreboard.settings.model import Settings
from scoreboard.storage.start_stores import start_stores
from scoreboard.telemetry import logging

T = TypeVar("T")


def with_stores(settings: Settings, work: Callable[[Stores], Awaitable[T]]) -> T:
    """Runs `work` on open stores and returns its result. Ctrl-C raises click.Abort.

    Standard output holds the command's own output alone. Logs go to standard error, and only warnings unless the
    settings ask for more.
    """
    level = "warning" if settings.log.level == "info" else settings.log.level
    logging.configure(level, settings.log.format, stream=sys.stderr)
    outcomes: list[T] = []

    async def run() -> None:
        async with start_stores(settings) as stores:
            outcomes.append(await work(stores))

    interrupted = False
    try:
        trio.run(run, restrict_keyboard_interrupt_to_checkpoints=True)  # so never within asyncio's code
    except* (KeyboardInterrupt, click.Abort):
        interrupted = True
    if interrupted:
        raise click.Abort
    return outcomes[0]


def with_accounts(settings: Settings, work: Callable[[Stores, Accounts], Awaitable[T]]) -> T:
    """The same, with the accounts of these stores. No other part of a node is built."""
    keys = settings.security.keys(settings.embedded.data_dir)

    async def run(stores: Stores) -> T:
        return await work(stores, build_accounts(settings, keys, stores).accounts)

    return with_stores(settings, run)
