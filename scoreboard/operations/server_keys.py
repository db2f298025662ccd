"""Verifies server keys. Every node has all live keys in memory, so verifying waits for nothing.

`ServerKeys.authenticate` is synchronous: the parser asks it for the limit of a body, the middleware for the key's own
rate limit, the handler for the scope. `watch` reads the keys from PostgreSQL every 1.5 s: a key that is made, rotated
or revoked is so on every node within 2 s, with or without Redis. During an outage of PostgreSQL no key can be revoked.
"""

import hmac
from dataclasses import dataclass

import structlog
import trio

from scoreboard.domain.errors import StorageUnavailable
from scoreboard.domain.scopes import Scope
from scoreboard.drivers.clock import DatabaseClock
from scoreboard.drivers.stores import Stores
from scoreboard.operations.authenticator import REVOCATION_CHECK_SECONDS
from scoreboard.security import server_keys as key_form
from scoreboard.storage.postgres import server_keys
from scoreboard.storage.postgres.server_keys import StoredKey

NOTE_USE_SECONDS = 60.0  # between two writes of when keys were last used, on each node

_NO_KEY = StoredKey("", (), bytes(32), None, None, None)  # compared where there is no such id: the time shows nothing

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """A valid server key, without its secret."""

    id: str
    scopes: frozenset[Scope]

    @property
    def actor(self) -> str:
        """The key in audit events, and as the signature of actions that it submits."""
        return f"server-key:{self.id}"


class ServerKeys:
    """The live server keys of this installation, as this node last read them."""

    __slots__ = ("_clock", "_identities", "_keys", "_stores", "_used")

    def __init__(self, stores: Stores, clock: DatabaseClock) -> None:
        """`clock`: PostgreSQL's time, for expiry."""
        self._stores, self._clock = stores, clock
        self._keys: dict[str, StoredKey] = {}  # by id; at most MAX_LIVE_KEYS
        self._identities: dict[str, ServerIdentity] = {}
        self._used: set[str] = set()  # ids, since the last write

    def authenticate(self, key: str) -> ServerIdentity | None:
        """The key's identity; None when it is no key of this installation, or not valid now. Takes 2 µs."""
        key_id = key_form.key_id_of(key)
        if key_id is None:
            return None
        stored, now = self._keys.get(key_id, _NO_KEY), self._clock.now()
        presented = key_form.digest(key)
        is_current = hmac.compare_digest(presented, stored.secret_sha256)
        is_previous = hmac.compare_digest(presented, stored.previous_sha256 or _NO_KEY.secret_sha256)
        if not (is_current or (is_previous and now < (stored.previous_until or 0))):
            return None
        if stored.expires_at is not None and stored.expires_at <= now:
            return None
        self._used.add(key_id)
        return self._identities[key_id]

    async def watch(self, *, task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Reads the keys from PostgreSQL, and writes when they were used, for ever. Started when the first read is done
        or has failed. Cancelling loses at most a minute of last uses."""
        noted, failing = trio.current_time(), False
        while True:
            try:
                self._set_keys(await server_keys.live(self._stores))
                if self._used and trio.current_time() - noted >= NOTE_USE_SECONDS:
                    used, self._used, noted = self._used, set(), trio.current_time()
                    await server_keys.note_used(self._stores, used)
                failing = False
            except StorageUnavailable as exc:
                if not failing:
                    log.warning("server_keys_read_failed", error=str(exc))
                failing = True
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            await trio.sleep(REVOCATION_CHECK_SECONDS)

    def _set_keys(self, keys: list[StoredKey]) -> None:
        self._keys = {key.id: key for key in keys}
        known = set(Scope)
        self._identities = {
            # a scope of a newer version is no scope here
            key.id: ServerIdentity(key.id, frozenset(Scope(scope) for scope in key.scopes if scope in known))
            for key in keys
        }
