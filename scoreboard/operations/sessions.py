"""Opens and ends sessions, and makes the tokens that a client gets for one.

Called by the use cases beside this file: register, log_in, refresh_session, change_password. A session is a row in
PostgreSQL. Its end is effective on this node at once, and on others within two seconds. Every method that awaits may
raise StorageUnavailable. Tested by tests/operations/test_refresh_session.py and test_authenticator.py.
"""

import secrets
import time
from collections.abc import Callable, Sequence
from uuid import UUID, uuid4

import msgspec
import structlog

from scoreboard.domain.boards import rfc3339
from scoreboard.domain.errors import Code, Refusal, StorageUnavailable
from scoreboard.drivers.stores import Stores
from scoreboard.operations.authenticator import Authenticator
from scoreboard.security import refresh_tokens
from scoreboard.security.device_cookies import NONCE_BYTES
from scoreboard.security.issuer import Issuer
from scoreboard.security.refresh_tokens import VALUE_BYTES
from scoreboard.storage.bus import Bus
from scoreboard.storage.postgres import sessions as session_store
from scoreboard.storage.postgres.sessions import Opened

REFRESH_DAYS = 30  # design: sessions live 30 days from their last use
# ended sessions of one change that are published; the other nodes read all of them within two seconds
MAX_PUBLISHED = 20

SESSION_ENDED = Refusal(Code.UNAUTHORIZED, "This session has ended. Please log in again.")

log = structlog.get_logger()


class LoggedIn(msgspec.Struct, frozen=True, omit_defaults=True):
    """The result of a log-in or a refresh, as clients read it. For browsers the web leaves the refresh token out and
    sets a cookie instead."""

    userId: str
    username: str
    accessToken: str
    expiresIn: int  # seconds
    actionSecret: str
    actionKeyVersion: int
    actionSecretExpiresAt: str
    refreshToken: str = ""

    def __repr__(self) -> str:
        return f"LoggedIn({self.userId})"  # never the secrets, whatever prints it


class Sessions:
    """The sessions of one installation, as one node opens and ends them."""

    __slots__ = ("_authenticator", "_clock", "bus", "issuer", "refresh_days", "stores")

    def __init__(
        self,
        stores: Stores,
        authenticator: Authenticator,
        issuer: Issuer,
        bus: Bus,
        *,
        refresh_days: int = REFRESH_DAYS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`bus` carries ended sessions to the other nodes. `clock` returns
        Unix seconds."""
        self.stores, self.issuer, self.refresh_days = stores, issuer, refresh_days
        self.bus = bus
        self._authenticator, self._clock = authenticator, clock

    async def open(self, user: UUID, username: str, password_hash: str, client: str = "") -> LoggedIn | None:
        """A new session; None when `password_hash` is no longer the user's, or the user is deleted. `client`: browser
        and system in words (domain.user_agents), which the user's list of sessions shows."""
        sid, token = self._first_token()
        digest = refresh_tokens.digest(token)
        expires_ms = await session_store.open_session(
            self.stores, sid, user, digest, self.refresh_days, password_hash, client
        )
        return None if expires_ms is None else self.logged_in(Opened(user, username, expires_ms), sid, token)

    async def open_identified(
        self, user: UUID, username: str, client: str = "", *, only_guest: bool = False
    ) -> LoggedIn | None:
        """A new session for a user whom something else than a password has identified: a device key, an outside
        issuer, a server key. None when the user is deleted, at that very moment too.

        `only_guest`: also None when the user has an address, so is no guest any more.
        """
        sid, token = self._first_token()
        digest = refresh_tokens.digest(token)
        expires_ms = await session_store.open_identified(
            self.stores, sid, user, digest, self.refresh_days, client, only_guest=only_guest
        )
        return None if expires_ms is None else self.logged_in(Opened(user, username, expires_ms), sid, token)

    def _first_token(self) -> tuple[UUID, str]:
        """The id of a new session, and its first refresh token."""
        sid = uuid4()
        return sid, self.issuer.first_refresh_token(sid, secrets.token_bytes(VALUE_BYTES))

    def logged_in(self, opened: Opened, sid: UUID, refresh_token: str) -> LoggedIn:
        """The answer for the client of an open session: a new access token, and the session's action secret."""
        user, issuer = opened.user, self.issuer
        return LoggedIn(
            userId=str(user),
            username=opened.username,
            accessToken=issuer.access_token(user, sid, jti=uuid4().hex, now=self._clock()),
            expiresIn=issuer.lifetime_seconds,
            actionSecret=issuer.action_secret(user, sid),
            actionKeyVersion=issuer.action_key_version,
            actionSecretExpiresAt=rfc3339(opened.expires_ms),
            refreshToken=refresh_token,
        )

    def device_cookie(self, logged_in: LoggedIn) -> str:
        """A device cookie for the browser that has just logged in. With it the browser is known at the next log-in."""
        return self.issuer.device_cookie(UUID(logged_in.userId), secrets.token_bytes(NONCE_BYTES))

    async def revoke(self, sid: UUID) -> None:
        """Ends the session, and so its refresh token and all its access tokens."""
        await session_store.revoke(self.stores, sid)
        await self.note_ended([sid])

    async def note_ended(self, sids: Sequence[UUID]) -> None:
        """These sessions have ended in PostgreSQL. From now on this node accepts no token of them. The first
        MAX_PUBLISHED are published to the other nodes; a failure to publish is only logged."""
        for sid in sids:
            self._authenticator.mark_revoked(sid)
        try:
            for sid in sids[:MAX_PUBLISHED]:
                await self.bus.publish_revoked(sid)
        except StorageUnavailable as exc:  # other nodes read it from PostgreSQL within two seconds
            log.warning("revocation_publish_failed", error=str(exc))
