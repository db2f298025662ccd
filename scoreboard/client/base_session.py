"""What a user's session does, on whatever loop: the methods that both clients' `Session` have."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx

from scoreboard.client.clock import ServerClock
from scoreboard.client.exchanges import Credentials, Outcome, SessionState, Steps, T, run_steps


class BaseSession(SessionState):
    """The loop's part is handed in: `now` (seconds, its clock), `sleep`, and a `lock` of its kind."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        credentials: Credentials,
        *,
        patience: float,
        clock: ServerClock | None,
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
        lock: AbstractAsyncContextManager[Any],
    ) -> None:
        super().__init__(credentials, patience=patience, now=now, clock=clock)
        self._http, self._sleep, self._renewing = http, sleep, lock

    async def submit(
        self, action_type: str, metadata: Mapping[str, Any] | None = None, *, action_id: str | None = None
    ) -> Outcome:
        """Signs an action, posts it, and returns what it gave.

        `action_id`: 1 to 100 characters, an UUID of its own by default. Give the one of an action whose outcome is
        unknown and it can't count twice: if it was recorded, Refused with 409 says so.

        Raises Refused (429 among it, with `retry_after` in seconds and `layer`: not tried again here) and Unreachable.
        Cancelling leaves open whether the action was recorded.
        """
        return await self._run(self.submit_steps(action_type, metadata, action_id))

    async def token(self) -> str:
        """An access token with some life in it, renewed if need be. Raises as `refresh`."""
        if self.is_due:
            await self.refresh()
        return self.credentials.accessToken

    async def refresh(self, *, instead_of: str = "") -> None:
        """Exchanges the refresh token for new credentials. `instead_of`: a token that was refused; if it is not ours
        any more all is done.

        Raises Refused (401: the session has ended, log in again) and Unreachable. A cancelled refresh is safe to repeat
        within a minute; later the server takes the spent token for a stolen one and ends the session.
        """
        spent = self.credentials.refreshToken
        async with self._renewing:  # two tasks, one refresh
            if not self.is_renewed(spent, instead_of):
                await self._run(self.renew_steps())

    async def log_out(self) -> None:
        """Ends the session: its tokens are void, on every node within two seconds. Raises Refused and Unreachable."""
        await self._run(self.log_out_steps())

    async def _run(self, steps: Steps[T]) -> T:
        return await run_steps(steps, self._http, self.clock, sleep=self._sleep, renew=self._renew)

    async def _renew(self, instead_of: str) -> None:
        await self.refresh(instead_of=instead_of)
