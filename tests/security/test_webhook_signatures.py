"""Signatures of webhooks, as a receiver checks them."""

import hashlib
import hmac

from scoreboard.security.webhook_signatures import webhook_signature


def test_a_receiver_can_check_it() -> None:
    """With the secret, over the time, a dot and the body."""
    expected = hmac.new(b"shared", b"1700000000.{}", hashlib.sha256).hexdigest()
    assert webhook_signature("shared", 1700000000, b"{}") == f"t=1700000000,v1={expected}"


def test_time_and_body_are_covered() -> None:
    """Neither can be replaced without the secret; nor can digits move from one to the other."""
    values = {
        webhook_signature(secret, seconds, body).partition(",")[2]
        for secret, seconds, body in [
            ("a", 1, b"1."),
            ("b", 1, b"1."),
            ("a", 2, b"1."),
            ("a", 1, b"2."),
            ("a", 11, b"."),
        ]
    }
    assert len(values) == 5
