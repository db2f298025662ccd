"""A user's session on asyncio: `log_in`, `exchange`, `log_in_as_guest`.

Tested in tests/client/test_loops.py.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx

from scoreboard.client.addresses import (
    open_http,
    parse_server_url,
)
from scoreboard.client.base_session import BaseSession
from scoreboard.client.clock import ServerClock
from scoreboard.client.errors import ClientError
from scoreboard.client.exchanges import (
    LOG_OUT_TIMEOUT_SECONDS,
    RETRY_SECONDS,
    Credentials,
    Send,
    by_device_key,
    by_password,
    by_token,
    log_in_steps,
    run_steps,
)
from scoreboard.client.loops import require_loop


class Session(BaseSession):
    """One user's session. `http` has the
    server as its `base_url` and is the caller's to close. Several tasks may use a session
    at once.

    `credentials`, `user`, `renewal` (the loop's clock: when the token is renewed) and `headers` (of a request of one's
    own) can be read.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        credentials: Credentials,
        *,
        patience: float = RETRY_SECONDS,
        clock: ServerClock | None = None,
    ) -> None:
        """`patience`: seconds for which a request without an answer is tried again. `clock`: one that knows the
        server's time already."""
        require_loop("asyncio", "Session")
        now = asyncio.get_running_loop().time
        super().__init__(
            http, credentials, retry_seconds=patience, clock=clock, now=now, sleep=asyncio.sleep, lock=asyncio.Lock()
        )


def log_in(
    url: str, username: str, password: str, *, patience: float = RETRY_SECONDS
) -> AbstractAsyncContextManager[Session]:
    """Logs in at `url` (http or https, without a path) and out at the end of the block, then for at most two seconds.

    `username` may be the e-mail address; `patience` as in Session. Proxies of the environment are used as httpx uses
    them, but never for this machine's loopback. Raises Refused (401: wrong; 429: too many tries), Unreachable, and
    ValueError for an address that is none.
    """
    require_loop("asyncio", "log_in")
    parse_server_url(url)
    return _logged_in(url, by_password(username, password), patience)


def exchange(url: str, token: str, *, patience: float = RETRY_SECONDS) -> AbstractAsyncContextManager[Session]:
    """As `log_in`, with a token of an issuer that the server's settings name. The account is made at first sight.

    Raises Refused (401: the token is not accepted, or has expired; 429: too many tries) and as `log_in`.
    """
    require_loop("asyncio", "exchange")
    parse_server_url(url)
    return _logged_in(url, by_token(token), patience)


def log_in_as_guest(
    url: str, device_key: str, username: str | None = None, *, patience: float = RETRY_SECONDS
) -> AbstractAsyncContextManager[Session]:
    """Plays without an account, where the server has guests. The same `device_key` is the same guest: make one by
    `new_device_key`, keep it as a secret. `username`: for a new guest; one that is taken gets a number.

    The rest is as of `log_in`. Refused with 401: the key's guest has an account now; with 403: there are no guests.
    """
    require_loop("asyncio", "log_in_as_guest")
    parse_server_url(url)
    return _logged_in(url, by_device_key(device_key, username), patience)


@asynccontextmanager
async def _logged_in(url: str, how: Send, patience: float) -> AsyncIterator[Session]:
    clock, now = ServerClock(), asyncio.get_running_loop().time
    async with open_http(url) as http:
        steps = log_in_steps(how, now=now, retry_seconds=patience)
        credentials = await run_steps(steps, http, clock, sleep=asyncio.sleep)
        session = Session(http, credentials, patience=patience, clock=clock)
        try:
            yield session
        finally:
            await _finish(_log_out(session))


async def _log_out(session: Session) -> None:
    """Ends the session if the server answers in time; else it expires."""
    try:
        async with asyncio.timeout(LOG_OUT_TIMEOUT_SECONDS):
            await session.log_out()
    except (ClientError, TimeoutError):
        pass


async def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Awaits short work to its end, even if cancelled meanwhile. The cancellation is raised afterwards."""
    task, cancelled = asyncio.create_task(work), False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    if cancelled:
        raise asyncio.CancelledError
