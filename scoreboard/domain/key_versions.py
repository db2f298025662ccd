"""Versions of the master key that action secrets are derived from: which are live, and which is the current one. Pure.

A version comes from the settings or from `scoreboard keys rotate`, which stores it in PostgreSQL. Times are compared by
PostgreSQL (storage.postgres.master_keys), so all nodes agree. Tested in tests/operations/test_key_versions.py.
"""

from collections.abc import Collection, Iterable
from enum import StrEnum
from typing import NamedTuple

# From a rotation until the new version is used. Each node reads the versions every 1.5 s, so by then all have it; a
# node without PostgreSQL for that long records no action meanwhile.
ACTIVATION_SECONDS = 10
DEFAULT_OVERLAP_MINUTES = 24 * 60  # how long older versions verify after a rotation: a day


class VersionState(StrEnum):
    """What a version is used for."""

    WAITING = "waiting"  # verifies; new secrets are made with it in some seconds
    LIVE = "live"  # verifies
    ENDED = "ended"  # its overlap is over
    REVOKED = "revoked"

    @property
    def verifies(self) -> bool:
        return self in {VersionState.WAITING, VersionState.LIVE}


class StoredVersion(NamedTuple):
    """A row of master_keys. `wrapped`: the encrypted key; None for a version of the settings, and for one that was
    revoked."""

    version: int
    state: VersionState
    wrapped: bytes | None = None
    wrapped_by: int | None = None

    def __repr__(self) -> str:
        return f"StoredVersion({self.version}, {self.state})"  # never the key, encrypted or not


def verifying_versions(of_settings: Iterable[int], stored: Collection[StoredVersion]) -> set[int]:
    """The versions whose signatures count."""
    refused = {each.version for each in stored if not each.state.verifies}
    return ({*of_settings} | {each.version for each in stored if each.wrapped is not None}) - refused


def current_version(of_settings: Iterable[int], current_of_settings: int, stored: Collection[StoredVersion]) -> int:
    """The version that new secrets are made with: the highest that is in use; 0 when every version is revoked or ended.

    Of the settings' versions only the current one competes, unless it is refused: then every other does.
    """
    verifying = verifying_versions(of_settings, stored)
    waiting = {each.version for each in stored if each.state is VersionState.WAITING}
    added = {each.version for each in stored if each.wrapped is not None}
    usable = verifying - waiting
    return max(usable & (added | {current_of_settings}), default=0) or max(usable or verifying, default=0)
