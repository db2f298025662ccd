"""The express table's part of the web: hot routes that http1 answers without ASGI. They are Quart routes too, with the same handlers."""

from scoreboard.runtime.http1 import Handler
from scoreboard.web.scores import ScoreRoutes

SUBMIT_PATH = "/api/v1/scores/action"
LEADERBOARD_PATH = "/api/v1/scores/leaderboard"


def build_table(scores: ScoreRoutes) -> dict[tuple[bytes, bytes], Handler]:
    """(method, path) → handler."""
    return {(b"POST", SUBMIT_PATH.encode()): scores.submit, (b"GET", LEADERBOARD_PATH.encode()): scores.leaderboard}
