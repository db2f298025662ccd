"""Signatures of what a node posts to servers of the operator: `X-Scoreboard-Signature: t=<Unix seconds>,v1=<hex>`.

The HMAC-SHA256 is over the time, a dot and the body, so that an old message can't be sent again as a new one: receivers
refuse a time that is minutes away. Pure.
"""

import hmac

SIGNATURE_HEADER = "X-Scoreboard-Signature"


def webhook_signature(secret: str, seconds: int, body: bytes) -> str:
    """The value of SIGNATURE_HEADER. `seconds`: Unix time of the request."""
    return f"t={seconds},v1={hmac.digest(secret.encode(), b'%d.' % seconds + body, 'sha256').hex()}"
