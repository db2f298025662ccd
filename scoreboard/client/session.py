"""One user's session over HTTP, on Trio: signed actions, tokens that are renewed before they expire, log-in and
log-out.

`log_in` opens one; a `Session` can also be made from credentials that came another way (`scoreboard users tokens`).
A request without an answer is tried again with the same bytes. An action has an id: however often it arrives, it counts
once. `exchanges` decides what is sent and what an answer means; here it is awaited.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
import trio

from scoreboard.client.addresses import open_http, parse_server_url
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

    `credentials`, `user`, `renewal` (Trio's clock: when the token is renewed) and `headers` (of a request of one's own)
    can be read.
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
        require_loop("trio", "Session")
        super().__init__(
            http,
            credentials,
            retry_seconds=patience,
            clock=clock,
            now=trio.current_time,
            sleep=trio.sleep,
            lock=trio.Lock(),
        )


def log_in(
    url: str, username: str, password: str, *, patience: float = RETRY_SECONDS
) -> AbstractAsyncContextManager[Session]:
    """Logs in at `url` (http or https, without a path) and out at the end of the block, then for at most two seconds.

    `username` may be the e-mail address; `patience` as in Session. Proxies of the environment are used as httpx uses
    them, but never for this machine's loopback. Raises Refused (401: wrong; 429: too many tries), Unreachable, and
    ValueError for an address that is none.
    """
    require_loop("trio", "log_in")
    parse_server_url(url)
    return _logged_in(url, by_password(username, password), patience)


def exchange(url: str, token: str, *, patience: float = RETRY_SECONDS) -> AbstractAsyncContextManager[Session]:
    """As `log_in`, with a token of an issuer that the server's settings name. The account is made at first sight.

    Raises Refused (401: the token is not accepted, or has expired; 429: too many tries) and as `log_in`.
    """
    require_loop("trio", "exchange")
    parse_server_url(url)
    return _logged_in(url, by_token(token), patience)


def log_in_as_guest(
    url: str, device_key: str, username: str | None = None, *, patience: float = RETRY_SECONDS
) -> AbstractAsyncContextManager[Session]:
    """Plays without an account, where the server has guests. The same `device_key` is the same guest: make one by
    `new_device_key`, keep it as a secret. `username`: for a new guest; one that is taken gets a number.

    The rest is as of `log_in`. Refused with 401: the key's guest has an account now; with 403: there are no guests.
    """
    require_loop("trio", "log_in_as_guest")
    parse_server_url(url)
    return _logged_in(url, by_device_key(device_key, username), patience)


@asynccontextmanager
async def _logged_in(url: str, how: Send, patience: float) -> AsyncIterator[Session]:
    clock = ServerClock()
    async with open_http(url) as http:
        steps = log_in_steps(how, now=trio.current_time, retry_seconds=patience)
        credentials = await run_steps(steps, http, clock, sleep=trio.sleep)
        session = Session(http, credentials, patience=patience, clock=clock)
        try:
            yield session
        finally:
            with trio.move_on_after(LOG_OUT_TIMEOUT_SECONDS, shield=True):
                try:
                    await session.log_out()
                except ClientError:
                    pass  # the session expires
