"""Who a token speaks for, now: verified once, remembered, and always asked together with the sessions that were ended.

`Sessions.authenticate` is synchronous and the first step of everything that needs a user, on every door. Revoked
sessions come in three ways: at once on the node that revoked, by message from others, and by `watch`, which reads
PostgreSQL and so needs no message at all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

import structlog
import trio

from scoreboard.domain.errors import StorageUnavailable
from scoreboard.security import tokens
from scoreboard.security.signatures import action_secrets
from scoreboard.security.tokens import TokenKeys
from scoreboard.storage.connections.clock import DatabaseClock
from scoreboard.storage.connections.stores import Stores
from scoreboard.storage.postgres import sessions

# tokens, 1.1 kB each; full: the one remembered longest goes, and is verified again (150 µs) when it comes back
REMEMBERED = 50_000
# seconds between two looks for revoked sessions; design: seen on every node within 2 s, the query included
REREAD = 1.5
# seconds read again each time: a revocation is stamped when its transaction begins and seen when it ends, at most 5 s
# later
OVERLAP = 10.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Identity:
    """The user and the session that a valid token speaks for."""

    user: UUID
    sid: UUID
    expires: float  # Unix seconds
    # live master key version → the action secret's UTF-8 bytes, which are the HMAC key
    secrets: Mapping[int, bytes] = field(repr=False)


class Authenticator:
    """Verified tokens and revoked sessions of this node."""

    __slots__ = ("_issuer", "_keys", "_known", "_lifetime", "_masters", "_revoked", "_stores", "clock")

    def __init__(
        self,
        stores: Stores,
        keys: TokenKeys,
        masters: Mapping[int, bytes],
        *,
        issuer: str,
        lifetime: int = tokens.LIFETIME,
        clock: DatabaseClock,
    ) -> None:
        """`lifetime`: the longest that an access token lives, in seconds. `clock` is measured here, and used by all."""
        self._stores, self._keys, self._masters, self._issuer, self.clock = stores, keys, masters, issuer, clock
        self._lifetime = lifetime + tokens.IAT_LEEWAY  # after this no token of a revoked session is valid any more
        self._known: dict[str, Identity] = {}
        # sid → when it may be forgotten, Trio's clock (nobody sets that); in that order
        self._revoked: dict[UUID, float] = {}

    def authenticate(self, token: str) -> Identity | None:
        """Whom the token speaks for; None when it is not ours, not valid now, or of a session that was ended."""
        identity = self._known.get(token) or self._verify(token)
        if identity is None or identity.sid in self._revoked or identity.expires <= self.clock.now():
            return None
        return identity

    def recall(self, token: str) -> Identity | None:
        """Whom the token spoke for when it was verified here, if that is remembered. Costs no look at a signature; it
        may have ended."""
        return self._known.get(token)

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
        within, since, failing = self._lifetime + OVERLAP, trio.current_time(), False
        while True:
            began = trio.current_time()
            try:
                asked = self.clock.node_now()
                revoked, now = await sessions.revoked_within(self._stores, within + began - since)
                self.clock.measure(asked, now, self.clock.node_now())
                for sid in revoked:
                    self._revoked.setdefault(sid, trio.current_time() + self._lifetime)
                within, since, failing = OVERLAP, began, False
            except StorageUnavailable as exc:
                if not failing:
                    log.warning("revoked_sessions_unread", error=str(exc))
                failing = True
            self._forget()
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            await trio.sleep(REREAD)

    def _verify(self, token: str) -> Identity | None:
        claims = tokens.verify(self._keys, token, issuer=self._issuer, now=self.clock.now())
        if claims is None:
            return None
        identity = Identity(
            claims.user, claims.sid, claims.expires, action_secrets(self._masters, claims.user, claims.sid)
        )
        if len(self._known) >= REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[token] = identity
        return identity

    def _forget(self) -> None:
        """Oldest first, and only as far as they are outdated; a token out of that order waits for those before it."""
        steady, now = trio.current_time(), self.clock.now()
        while self._revoked and self._revoked[sid := next(iter(self._revoked))] <= steady:
            del self._revoked[sid]
        while self._known and self._known[token := next(iter(self._known))].expires <= now:
            del self._known[token]
