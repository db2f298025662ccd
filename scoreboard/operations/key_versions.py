"""Brings the versions of the master key that PostgreSQL has to a node's issuer, and changes them for an operator.

A node reads them with the ended sessions (operations.authenticator), so a rotation reaches it before the new version is
used, and a revocation within two seconds.
"""

import secrets
from collections.abc import Collection

import structlog

from scoreboard.domain.errors import StartError
from scoreboard.domain.key_versions import StoredVersion, current_version, verifying_versions
from scoreboard.drivers.stores import Stores
from scoreboard.security.issuer import Issuer
from scoreboard.security.key_wrapping import NONCE_BYTES, unwrap, wrap
from scoreboard.security.signatures import SECRET_BYTES
from scoreboard.storage.postgres import master_keys
from scoreboard.storage.postgres.master_keys import Revocation

log = structlog.get_logger()


class KeyVersions:
    """The versions that this process has read, and the issuer that uses them."""

    __slots__ = ("_faults", "_issuer", "_keys")

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._keys: dict[tuple[int, bytes], bytes] = {}  # decrypted, by version and wrapped key: one for each rotation
        self._faults: list[str] = []

    def apply(self, stored: Collection[StoredVersion], *, starting: bool = False) -> bool:
        """Has the issuer use these versions. Returns whether other signatures count than before.

        A version that can't be read is left out, with a log line. When `starting` it raises StartError: the node would
        refuse actions that the other nodes take.
        """
        issuer = self._issuer
        usable, faults = list[StoredVersion](), list[str]()
        keys = dict(issuer.master_keys)
        for each in stored:
            if each.wrapped is None or not each.state.verifies:
                usable.append(each)
            elif each.version in issuer.master_keys:
                faults.append(f"version {each.version} was made by `keys rotate`, and is in security.master_keys, too")
            elif (key := self._read(each)) is None:
                faults.append(f"version {each.version} can't be read with security.master_keys.{each.wrapped_by}")
            else:
                keys[each.version] = key
                usable.append(each)
        self._report(faults, starting=starting)
        verifying = verifying_versions(issuer.master_keys, usable)
        live = {version: keys[version] for version in sorted(verifying)}
        is_changed = live != issuer.action_keys
        issuer.replace_action_keys(live, current_version(issuer.master_keys, issuer.current_version, usable))
        return is_changed

    def _read(self, stored: StoredVersion) -> bytes | None:
        assert stored.wrapped is not None
        key = self._keys.get((stored.version, stored.wrapped))
        if key is None and (master_key := self._issuer.master_keys.get(stored.wrapped_by or 0)) is not None:
            key = unwrap(master_key, stored.version, stored.wrapped)
            if key is not None:
                self._keys[stored.version, stored.wrapped] = key
        return key

    def _report(self, faults: list[str], *, starting: bool) -> None:
        if faults and starting:
            raise StartError(f"master keys: {'; '.join(faults)}; give every node the same security.master_keys")
        if faults and faults != self._faults:
            log.error("master_key_unusable", faults=faults)
        self._faults = faults


async def load_key_versions(stores: Stores, issuer: Issuer) -> None:
    """For a command: has the issuer use the versions of now. Raises StartError, StorageUnavailable."""
    KeyVersions(issuer).apply(await master_keys.read(stores), starting=True)


async def rotate(stores: Stores, issuer: Issuer, overlap_minutes: int) -> int:
    """Makes a new version, and returns it. Raises StorageUnavailable."""
    return await master_keys.rotate(
        stores, issuer.master_keys, lambda version: _new_key(issuer, version), issuer.current_version, overlap_minutes
    )


async def revoke(stores: Stores, issuer: Issuer, version: int) -> Revocation | None:
    """Ends a version at once; None when there is none of this number. Raises StorageUnavailable."""
    return await master_keys.revoke(
        stores, version, issuer.master_keys, lambda new: _new_key(issuer, new), issuer.current_version
    )


def _new_key(issuer: Issuer, version: int) -> bytes:
    """A random key of a new version, encrypted."""
    key, nonce = secrets.token_bytes(SECRET_BYTES), secrets.token_bytes(NONCE_BYTES)
    return wrap(issuer.master_keys[issuer.current_version], version, key, nonce)
