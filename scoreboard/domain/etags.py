"""Entity tags of what is sent: the same bytes have the same one, on every node and after every start. Pure."""

from hashlib import sha256

DIGEST_CHARACTERS = 32  # of SHA-256 in hex: 128 bits, enough against chance collisions


def strong_etag(content: bytes) -> bytes:
    """A strong ETag (RFC 9110 section 8.8.3), with its quotes, of exactly these bytes: a compressed form has another
    one."""
    return b'"%b"' % sha256(content).hexdigest()[:DIGEST_CHARACTERS].encode()
