"""Notes from which networks users log in, for the rule `shared_address`, off the way of a log-in.

A log-in puts a note into a bounded channel, and a task writes it. The address itself is never stored: see
security.network_hashes. Notes that a node had not written when it ended are lost; the rule is a hint, not a limit.
"""

from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

import structlog
import trio

from scoreboard.domain.errors import StorageUnavailable
from scoreboard.domain.networks import networks_of
from scoreboard.drivers.stores import Stores
from scoreboard.security.network_hashes import network_hash
from scoreboard.storage.flagging import Opened
from scoreboard.storage.log_in_networks import note_log_in

MAX_NOTES = 1_024  # that wait; full: further ones are dropped, as during an outage of PostgreSQL

log = structlog.get_logger()


class _Note(NamedTuple):
    network: bytes
    user: UUID


class LogInNetworks:
    """The notes of one node."""

    __slots__ = ("_alerts", "_clock", "_count_opened", "_master_key", "_most_accounts", "_receive", "_send", "_stores")

    def __init__(
        self,
        stores: Stores,
        master_key: bytes,
        most_accounts: int,
        *,
        alerts: bool,
        clock: Callable[[], float],
        count_opened: Callable[[Opened], None] = lambda _: None,
    ) -> None:
        """`most_accounts` of one network within a month are no finding. `clock` returns Unix seconds, the same on every
        node. `count_opened` is told of new flags."""
        self._stores, self._master_key, self._most_accounts = stores, master_key, most_accounts
        self._alerts, self._clock, self._count_opened = alerts, clock, count_opened
        self._send, self._receive = trio.open_memory_channel[_Note](MAX_NOTES)

    def note(self, address: str, user: UUID) -> None:
        """A user has logged in from an address. Returns at once, and never raises."""
        try:
            self._send.send_nowait(_Note(network_hash(self._master_key, networks_of(address)[0], self._clock()), user))
        except trio.WouldBlock:
            log.debug("log_in_note_dropped")

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Writes notes for ever. Started at once. A note that can't be written is dropped. Cancelling loses those that
        wait."""
        task_status.started()
        while True:
            note = await self._receive.receive()
            try:
                self._count_opened(
                    await note_log_in(self._stores, note.network, note.user, self._most_accounts, alerts=self._alerts)
                )
            except StorageUnavailable as exc:
                log.debug("log_in_note_dropped", why=exc.why)
