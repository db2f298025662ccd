"""Signs an action, as a client does. Uses the standard library only: the Python client is installed without the
server's packages.

Tested by tests/security/test_signatures.py.
"""

import hmac


def sign(secret: bytes, body: bytes) -> str:
    """The value of `X-Action-Signature`: lower-case hex of HMAC-SHA256 over the body's bytes."""
    return hmac.digest(secret, body, "sha256").hex()
