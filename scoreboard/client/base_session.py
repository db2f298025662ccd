"""The methods of a session that both clients' `Session` have, on any loop.

Tested in tests/client/test_session.py.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx

from scoreboard.client.clock import ServerClock
from scoreboard.client.exchanges import Credentials, Outcome, SessionState, Started, Steps, T, run_steps


class BaseSession(SessionState):
    """`now` (seconds, the loop's clock), `sleep` and `lock` are the loop's own."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        credentials: Credentials,
        *,
        retry_seconds: float,
        clock: ServerClock | None,
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
        lock: AbstractAsyncContextManager[Any],
    ) -> None:
        super().__init__(credentials, retry_seconds=retry_seconds, now=now, clock=clock)
        self._http, self._sleep, self._refresh_lock = http, sleep, lock

    async def submit(
        self,
        action_type: str,
        metadata: Mapping[str, Any] | None = None,
        *,
        action_id: str | None = None,
        start_id: str | None = None,
        evidence: bytes | None = None,
    ) -> Outcome:
        """Signs an action, posts it, and returns its result.

        `start_id`: of `start`, for a type that needs one. `evidence`: at most 256 KiB, for a type that needs it; it is
        uploaded first.

        `action_id`: 1 to 100 characters, an UUID of its own by default. Give the one of an action whose outcome is
        unknown and it can't count twice: if it was recorded, Refused with 409 says so.

        Raises ActionHeld when the action waits for a decision, Refused (429 among it, with `retry_after` in seconds and
        `layer`: not tried again here) and Unreachable. Cancelling leaves open whether the action was recorded.
        """
        return await self._run(self.submit_steps(action_type, metadata, action_id, start_id, evidence))

    async def start(self, action_type: str) -> Started:
        """Begins an action of a type that needs a start, and returns the start.

        Raises Refused and Unreachable. After a cancellation there may be a start that nobody uses.
        """
        return await self._run(self.start_steps(action_type))

    async def token(self) -> str:
        """An access token with some life in it, renewed if need be. Raises as `refresh`."""
        if self.is_due:
            await self.refresh()
        return self.credentials.accessToken

    async def refresh(self, *, instead_of: str = "") -> None:
        """Exchanges the refresh token for new credentials. `instead_of`: a token that was refused; if
        it is not the present one any more, nothing is done.

        Raises Refused (401: the session has ended, log in again) and Unreachable. A cancelled refresh is safe to repeat
        within a minute; later the server takes the used token for a stolen one and ends the session.
        """
        used = self.credentials.refreshToken
        async with self._refresh_lock:  # two tasks, one refresh
            if not self.is_refreshed(used, instead_of):
                await self._run(self.refresh_steps())

    async def link(self, email: str, password: str, username: str | None = None) -> None:
        """Makes an account of a guest: score, rank and history stay. `username`: another name, None keeps it. The
        session goes on with new credentials; the device key opens none any more.

        Raises Refused (409: `errors` names what is taken, or this is no guest) and Unreachable. After a cancellation
        the account may be there: log in with the password to find out.
        """
        async with self._refresh_lock:  # a refresh of the old session beside it would be refused
            await run_steps(
                self.link_steps(email, password, username),
                self._http,
                self.clock,
                sleep=self._sleep,
                refresh=self._refresh_within_link,
            )

    async def log_out(self) -> None:
        """Ends the session: its tokens are void, on every node within two seconds. Raises Refused and Unreachable."""
        await self._run(self.log_out_steps())

    async def _run(self, steps: Steps[T]) -> T:
        return await run_steps(steps, self._http, self.clock, sleep=self._sleep, refresh=self._refresh_instead_of)

    async def _refresh_within_link(self, instead_of: str) -> None:
        """The lock is held already."""
        if not self.is_refreshed(self.credentials.refreshToken, instead_of):
            await self._run(self.refresh_steps())

    async def _refresh_instead_of(self, instead_of: str) -> None:
        await self.refresh(instead_of=instead_of)
