"""What a client does to sign an action. Needs the standard library only: the Python client is installed without the
server's packages.

Tested in tests/security/test_signatures.py.
"""

import hmac


def sign(secret: bytes, body: bytes) -> str:
    """What a client puts into `X-Action-Signature`: lower-case hex of HMAC-SHA256 over the body's bytes."""
    return hmac.digest(secret, body, "sha256").hex()
