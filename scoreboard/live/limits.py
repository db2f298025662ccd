"""What one connection may do. `live.admission` decides how many connections there may be.

Tested in tests/live/transports/test_websocket.py.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LiveLimits:
    """The same for every connection; budgets count per window."""

    anonymous: bool = True
    slow_reader_seconds: float = 4.0  # behind for so long: closed, counted as 4413
    window_seconds: float = 10.0  # contract: too many messages per 10 s
    max_messages: int = 60  # a window; a client needs three to begin with, and one now and then
    max_frames: int = 120  # a window; a message is one, and a browser answers one ping in 20 s
    max_reads: int = 240  # a window; a client that sends single bytes costs a wake-up for each
    max_received_bytes: int = 65_536  # a window
    silent_seconds: float = 60.0  # contract
    ping_seconds: float = 20.0  # contract
    auth_seconds: float = 10.0  # contract: with anonymous = False
