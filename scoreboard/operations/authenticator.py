"""Finds the user of an access token. A token is verified once and cached; each use is checked against revoked sessions.

`Authenticator.authenticate` is synchronous, and the first step of every request of a user. A node learns of a revoked
session in one of three ways: it revoked the session itself, another node sent a message, or `watch` read it from
PostgreSQL. The last one works without messages. `watch` reads the versions of the master key as well: when other
signatures count than before, the cache is dropped, since a cached token has the secrets of its session.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

import structlog
import trio

from scoreboard.domain.errors import StorageUnavailable
from scoreboard.drivers.clock import DatabaseClock
from scoreboard.drivers.stores import Stores
from scoreboard.operations.key_versions import KeyVersions
from scoreboard.security import tokens
from scoreboard.security.issuer import Issuer
from scoreboard.storage.postgres import master_keys, sessions

# tokens, 1.1 kB each; full: the oldest is dropped, and verified again (150 µs) when it is used
VERIFIED_CACHE_SIZE = 50_000
# between two reads of revoked sessions; with the query, a revocation is effective on every node within 2 s
REVOCATION_CHECK_SECONDS = 1.5
# Each read covers this much of the time before the last one. A revocation is dated by the start of its transaction, and
# becomes visible at its end, at most 5 s later.
OVERLAP_SECONDS = 10.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Identity:
    """The user and the session of a valid token."""

    user: UUID
    sid: UUID
    expires: float  # Unix seconds
    # live master key version → the action secret's UTF-8 bytes, which are the HMAC key
    secrets: Mapping[int, bytes] = field(repr=False)


class Authenticator:
    """Verified tokens and revoked sessions of this node."""

    __slots__ = ("_issuer", "_key_versions", "_lifetime", "_revoked", "_stores", "_verified", "clock")

    def __init__(
        self,
        stores: Stores,
        issuer: Issuer,
        clock: DatabaseClock,
    ) -> None:
        """`watch` measures `clock`; the whole node uses it."""
        self._stores, self._issuer, self.clock = stores, issuer, clock
        self._key_versions = KeyVersions(issuer)
        # in seconds; after this every token of a revoked session has expired
        self._lifetime = issuer.lifetime_seconds + tokens.IAT_LEEWAY_SECONDS
        self._verified: dict[str, Identity] = {}
        # sid → when it may be dropped, by Trio's clock, which is monotonic; in that order
        self._revoked: dict[UUID, float] = {}

    def authenticate(self, token: str) -> Identity | None:
        """The token's user and session; None when it is not of this installation, not valid now, or revoked."""
        identity = self._verified.get(token) or self._verify(token)
        if identity is None or identity.sid in self._revoked or identity.expires <= self.clock.now():
            return None
        return identity

    def cached_identity(self, token: str) -> Identity | None:
        """The token's user and session from the cache; None when the token is not cached. The session may have ended
        since then."""
        return self._verified.get(token)

    def mark_revoked(self, sid: UUID) -> None:
        """From now on no token of that session is accepted on this node."""
        self._revoked[sid] = trio.current_time() + self._lifetime

    def is_revoked(self, sid: UUID) -> bool:
        return sid in self._revoked

    async def watch(self, *, task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Reads revoked sessions, versions of the master key and the time from PostgreSQL, for ever. Started when the
        first read is done or has failed.

        During an outage of PostgreSQL no session can be revoked. The first read after it covers the whole outage.
        Cancelling changes nothing. Raises StartError when it is starting and can't read a version of the master key.
        """
        starting = True
        within, since, failing = self._lifetime + OVERLAP_SECONDS, trio.current_time(), False
        while True:
            began = trio.current_time()
            try:
                asked = self.clock.node_now()
                revoked, now = await sessions.revoked_within(self._stores, within + began - since)
                self.clock.measure(asked, now, self.clock.node_now())
                for sid in revoked:
                    self._revoked.setdefault(sid, trio.current_time() + self._lifetime)
                if self._key_versions.apply(await master_keys.read(self._stores), starting=starting):
                    self._verified.clear()  # each is verified again at its next use, 150 µs
                within, since, failing = OVERLAP_SECONDS, began, False
            except StorageUnavailable as exc:
                if not failing:
                    log.warning("revoked_sessions_read_failed", error=str(exc))
                failing = True
            self._drop_outdated()
            starting = False
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
        """Drops outdated entries from the oldest on, and stops at the first that is not outdated."""
        steady, now = trio.current_time(), self.clock.now()
        while self._revoked and self._revoked[sid := next(iter(self._revoked))] <= steady:
            del self._revoked[sid]
        while self._verified and self._verified[token := next(iter(self._verified))].expires <= now:
            del self._verified[token]
