"""Entity tags: the same bytes have the same tag, on every node and after every start. Pure."""

from hashlib import sha256

DIGEST_CHARACTERS = 32  # of SHA-256 in hex: 128 bits, enough against chance collisions


def strong_etag(content: bytes) -> bytes:
    """The strong ETag of these bytes, with its quotes (RFC 9110, 8.8.3). A compressed form has another one."""
    return b'"%b"' % sha256(content).hexdigest()[:DIGEST_CHARACTERS].encode()
