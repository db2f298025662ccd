"""The user that an access token stands for. A token is verified once and cached; each use compares it with the sessions
that were ended.

`Authenticator.authenticate` is synchronous, and the first step of everything that needs a user. Revoked sessions come
in three ways: at once on the node that revoked, by message from others, and by `watch`, which reads PostgreSQL and so
needs no message at all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

import structlog
import trio

from scoreboard.domain.errors import StorageUnavailable
from scoreboard.security import tokens
from scoreboard.security.issuer import Issuer
from scoreboard.storage.connections.clock import DatabaseClock
from scoreboard.storage.connections.stores import Stores
from scoreboard.storage.postgres import sessions

# tokens, 1.1 kB each; full: the oldest is dropped, and is verified again (150 µs) when it comes back
VERIFIED_CACHE_SIZE = 50_000
# between two readings of revoked sessions; a revocation holds on every node within 2 s, the query included
REVOCATION_CHECK_SECONDS = 1.5
# read again each time: a revocation has the time at which its transaction began, and is visible when that ended, at
# most 5 s later
OVERLAP_SECONDS = 10.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Identity:
    """The user and the session that a valid token stands for."""

    user: UUID
    sid: UUID
    expires: float  # Unix seconds
    # live master key version → the action secret's UTF-8 bytes, which are the HMAC key
    secrets: Mapping[int, bytes] = field(repr=False)


class Authenticator:
    """Verified tokens and revoked sessions of this node."""

    __slots__ = ("_issuer", "_lifetime", "_revoked", "_stores", "_verified", "clock")

    def __init__(
        self,
        stores: Stores,
        issuer: Issuer,
        clock: DatabaseClock,
    ) -> None:
        """`clock` is measured by `watch`, and used by the whole node."""
        self._stores, self._issuer, self.clock = stores, issuer, clock
        # in seconds; after this no token of a revoked session is valid any more
        self._lifetime = issuer.lifetime_seconds + tokens.IAT_LEEWAY_SECONDS
        self._verified: dict[str, Identity] = {}
        # sid → when it may be forgotten, Trio's clock (nobody sets that); in that order
        self._revoked: dict[UUID, float] = {}

    def authenticate(self, token: str) -> Identity | None:
        """The token's user and session; None when it is not ours, not valid now, or of a session that was ended."""
        identity = self._verified.get(token) or self._verify(token)
        if identity is None or identity.sid in self._revoked or identity.expires <= self.clock.now():
            return None
        return identity

    def recall(self, token: str) -> Identity | None:
        """The token's user and session when it was verified here, if that is cached. No signature is verified; the
        session may have ended."""
        return self._verified.get(token)

    def mark_revoked(self, sid: UUID) -> None:
        """From now on no token of that session is accepted on this node."""
        self._revoked[sid] = trio.current_time() + self._lifetime

    def is_revoked(self, sid: UUID) -> bool:
        return sid in self._revoked

    async def watch(self, *, task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Reads revoked sessions and the time from PostgreSQL for ever. Started when the first reading is done, or has
        failed.

        An outage of PostgreSQL costs nothing: nobody can be logged out while it lasts, and the next reading reaches
        back over it.
        """
        within, since, failing = self._lifetime + OVERLAP_SECONDS, trio.current_time(), False
        while True:
            began = trio.current_time()
            try:
                asked = self.clock.node_now()
                revoked, now = await sessions.revoked_within(self._stores, within + began - since)
                self.clock.measure(asked, now, self.clock.node_now())
                for sid in revoked:
                    self._revoked.setdefault(sid, trio.current_time() + self._lifetime)
                within, since, failing = OVERLAP_SECONDS, began, False
            except StorageUnavailable as exc:
                if not failing:
                    log.warning("revoked_sessions_read_failed", error=str(exc))
                failing = True
            self._drop_outdated()
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            await trio.sleep(REVOCATION_CHECK_SECONDS)

    def _verify(self, token: str) -> Identity | None:
        claims = self._issuer.verify_access_token(token, now=self.clock.now())
        if claims is None:
            return None
        action_secrets = self._issuer.action_secrets(claims.user, claims.sid)
        identity = Identity(claims.user, claims.sid, claims.expires, action_secrets)
        if len(self._verified) >= VERIFIED_CACHE_SIZE:
            del self._verified[next(iter(self._verified))]
        self._verified[token] = identity
        return identity

    def _drop_outdated(self) -> None:
        """Oldest first, and only as far as they are outdated; a token out of that order waits for those before it."""
        steady, now = trio.current_time(), self.clock.now()
        while self._revoked and self._revoked[sid := next(iter(self._revoked))] <= steady:
            del self._revoked[sid]
        while self._verified and self._verified[token := next(iter(self._verified))].expires <= now:
            del self._verified[token]
