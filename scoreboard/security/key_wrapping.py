"""Master keys that are stored outside of the settings, encrypted with a master key of the settings (key wrapping).

AES-256-GCM with a random nonce. The key is derived for this purpose alone, and the version is authenticated: a wrapped
key can't be put in the place of another version. Pure: keys and nonces are arguments.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

NONCE_BYTES = 12  # what AES-GCM takes; random is safe for far more keys than anybody rotates
_INFO = b"scoreboard key wrapping"  # so that other keys derived from the same master key are different


def wrap(master_key: bytes, version: int, key: bytes, nonce: bytes) -> bytes:
    """The key of `version`, encrypted with a master key of the settings."""
    return nonce + _cipher(master_key).encrypt(nonce, key, _context(version))


def unwrap(master_key: bytes, version: int, wrapped: bytes) -> bytes | None:
    """The key of `version`; None when it was wrapped with another master key or for another version, or was changed."""
    try:
        return _cipher(master_key).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], _context(version))
    except (InvalidTag, ValueError):  # ValueError: too short
        return None


def _cipher(master_key: bytes) -> AESGCM:
    return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=None, info=_INFO).derive(master_key))


def _context(version: int) -> bytes:
    return b"master key %d" % version
