"""Admits requests that need a password hash: checks the limits of log-ins and the places of the hashing queue.

Shared by register, log_in and change_password. Nothing is awaited before an attempt and a place are reserved, so a
flood of requests costs no query. Tested by tests/operations/test_log_in.py.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import trio

from scoreboard.domain.errors import Code, LimitLayer, Refusal, rate_limited
from scoreboard.operations.hashing import HashingQueue, Place
from scoreboard.operations.login_limits import Attempt, LoginLimits

TOO_BUSY = Refusal(Code.SERVICE_UNAVAILABLE, "Too many people are logging in at the moment.", retry_after=2)


class Client(NamedTuple):
    """The client of a request: its address ("": this process), the device cookies that it sent, and browser and system
    in words (domain.user_agents)."""

    address: str = ""
    devices: tuple[str, ...] = ()
    agent: str = ""

    def __repr__(self) -> str:
        return f"Client({self.address}, {len(self.devices)} device cookies)"


THIS_PROCESS = Client()


class LoginAdmission:
    """The limits and the queue of one node."""

    __slots__ = ("clock", "hashing", "limits")

    def __init__(self, limits: LoginLimits, clock: Callable[[], float] = trio.current_time) -> None:
        """`clock` returns seconds that never go back."""
        self.limits, self.clock, self.hashing = limits, clock, HashingQueue()

    @contextmanager
    def admit(self, client: Client, *, has_device: bool = False) -> Iterator[tuple[Attempt, Place] | Refusal]:
        """Yields an attempt and a place in the hashing queue, both reserved in one step; or a Refusal, with neither
        reserved. The end of the block releases the place; an exception also withdraws the attempt."""
        attempt = self.limits.begin(client.address, self.clock(), has_device=has_device)
        if isinstance(attempt, int):
            yield rate_limited(LimitLayer.LOGIN, "Too many log-ins from this address.", attempt)
            return
        place = self.hashing.reserve(known=has_device)
        if place is None:
            attempt.withdraw()
            yield TOO_BUSY
            return
        with attempt, place:
            yield attempt, place
