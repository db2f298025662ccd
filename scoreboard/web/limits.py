"""The sliding window under its old name, for web.gate; see domain.sliding_window."""

from scoreboard.domain.sliding_window import SlidingWindow

__all__ = ["SlidingWindow"]
