"""Close codes: each one says whether a client should reconnect."""

from scoreboard.domain import close_codes


def test_every_close_code_says_what_to_do() -> None:
    """Each close code has a reason that fits into a control frame and says whether to reconnect."""
    assert set(close_codes.RECONNECT) == set(close_codes.CLOSE_REASONS) == set(close_codes.CloseCode)
    for code in close_codes.CloseCode:
        text = close_codes.close_reason(code)
        assert len(text.encode()) <= 123
        assert text.endswith("; reconnect") == close_codes.RECONNECT[code]
