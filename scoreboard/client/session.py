"""One user's session over HTTP, on Trio: signed actions, tokens that are renewed before they expire, log-in and log-out.

`log_in` opens one; a `Session` can also be made from credentials that came another way (`scoreboard users tokens`). Every request is tried
again while nobody answers, with the same bytes: an action is known by its id, so however often it arrives it counts once. What is sent and
what an answer means is decided in `exchanges`; here it is awaited.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import trio

from scoreboard.client.addresses import open_http, parse_address
from scoreboard.client.clock import ServerClock
from scoreboard.client.errors import ClientError
from scoreboard.client.exchanges import (
    LOG_OUT_SECONDS,
    RETRY_SECONDS,
    Credentials,
    Outcome,
    SessionState,
    Steps,
    T,
    log_in_steps,
    run_steps,
)
from scoreboard.client.loops import require_loop


class Session(SessionState):
    """One user's. `http` has the server as its `base_url` and is the caller's to close. Several tasks may use a session at once.

    `credentials`, `user`, `renewal` (Trio's clock: when the token is renewed) and `headers` (of a request of one's own) can be read.
    """

    def __init__(
        self, http: httpx.AsyncClient, credentials: Credentials, *, patience: float = RETRY_SECONDS, clock: ServerClock | None = None
    ) -> None:
        """`patience`: seconds that a request is tried again while nobody answers. `clock`: one that knows the server's time already."""
        require_loop("trio", "Session")
        super().__init__(credentials, patience=patience, now=trio.current_time, clock=clock)
        self._http = http
        self._renewing = trio.Lock()

    async def submit(self, action_type: str, metadata: Mapping[str, Any] | None = None, *, action_id: str | None = None) -> Outcome:
        """Signs an action, posts it, and returns what it gave.

        `action_id`: 1 to 100 characters, an UUID of its own by default. Give the one of an action whose outcome is unknown and it can't
        count twice: if it was recorded, Refused with 409 says so.

        Raises Refused (429 among it, with `retry_after` in seconds and `layer`: not tried again here) and Unreachable. Cancelling leaves
        open whether the action was recorded.
        """
        return await self._run(self.submit_steps(action_type, metadata, action_id))

    async def token(self) -> str:
        """An access token with some life in it, renewed if need be. Raises as `refresh`."""
        if self.is_due:
            await self.refresh()
        return self.credentials.accessToken

    async def refresh(self, *, instead_of: str = "") -> None:
        """Exchanges the refresh token for new credentials. `instead_of`: a token that was refused; if it is not ours any more all is done.

        Raises Refused (401: the session has ended, log in again) and Unreachable. A cancelled refresh is safe to repeat within a minute;
        later the server takes the spent token for a stolen one and ends the session.
        """
        spent = self.credentials.refreshToken
        async with self._renewing:  # two tasks, one refresh
            if not self.is_renewed(spent, instead_of):
                await self._run(self.renew_steps())

    async def log_out(self) -> None:
        """Ends the session: its tokens are void, on every node within two seconds. Raises Refused and Unreachable."""
        await self._run(self.log_out_steps())

    async def _run(self, steps: Steps[T]) -> T:
        return await run_steps(steps, self._http, self.clock, sleep=trio.sleep, renew=self._renew)

    async def _renew(self, instead_of: str) -> None:
        await self.refresh(instead_of=instead_of)


def log_in(url: str, username: str, password: str, *, patience: float = RETRY_SECONDS) -> AbstractAsyncContextManager[Session]:
    """Logs in at `url` (http or https, without a path) and out at the end of the block, then for at most two seconds.

    `username` may be the e-mail address; `patience` as in Session. Proxies of the environment are used as httpx uses them, but never for
    this machine's loopback. Raises Refused (401: wrong; 429: too many tries), Unreachable, and ValueError for an address that is none.
    """
    require_loop("trio", "log_in")
    parse_address(url)
    return _logged_in(url, username, password, patience)


@asynccontextmanager
async def _logged_in(url: str, username: str, password: str, patience: float) -> AsyncIterator[Session]:
    clock = ServerClock()
    async with open_http(url) as http:
        steps = log_in_steps(username, password, now=trio.current_time, patience=patience)
        credentials = await run_steps(steps, http, clock, sleep=trio.sleep)
        session = Session(http, credentials, patience=patience, clock=clock)
        try:
            yield session
        finally:
            with trio.move_on_after(LOG_OUT_SECONDS, shield=True):
                try:
                    await session.log_out()
                except ClientError:
                    pass  # it ends by itself, or has
