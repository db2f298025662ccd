"""Routes that http1 answers without ASGI, or even without waking the connection's task.

Submit and leaderboard are Quart routes too, with the same handlers. The event stream and the long poll are not: one keeps its Socket, and
thousands of either wait at the same time.
"""

from scoreboard.domain.errors import Code, Refusal
from scoreboard.runtime.front import Handler, Prompt
from scoreboard.runtime.messages import Request, Response
from scoreboard.web.problems import problem
from scoreboard.web.scores import ScoreRoutes

SUBMIT_PATH = "/api/v1/scores/action"
LEADERBOARD_PATH = "/api/v1/scores/leaderboard"
STREAM_PATH = "/api/v1/scores/stream"
POLL_PATH = "/api/v1/scores/poll"

NOT_ALLOWED = Refusal(Code.METHOD_NOT_ALLOWED, "This path is there, but not for this method.")


def build_table(scores: ScoreRoutes) -> dict[tuple[bytes, bytes], Handler]:
    """(method, path) → handler."""
    return {(b"POST", SUBMIT_PATH.encode()): scores.submit, (b"GET", LEADERBOARD_PATH.encode()): scores.leaderboard}


def build_live_table(stream: Handler, poll: Handler) -> dict[tuple[bytes, bytes], Handler]:
    """The same for what only http1 can answer; other methods are refused as Quart does."""
    paths = {STREAM_PATH.encode(): stream, POLL_PATH.encode(): poll}
    refused: dict[tuple[bytes, bytes], Handler] = {
        (method, path): _not_allowed for path in paths for method in (b"POST", b"PUT", b"PATCH", b"DELETE")
    }
    return refused | {(b"GET", path): handler for path, handler in paths.items()}


async def _not_allowed(request: Request) -> Response:
    return problem(NOT_ALLOWED, request.request_id, fields=b"allow: GET, HEAD\r\n")


def build_prompt_table(scores: ScoreRoutes, poll: Prompt) -> dict[tuple[bytes, bytes], Prompt]:
    """(method, path) → what needs no task to wait."""
    return {
        (b"POST", SUBMIT_PATH.encode()): scores.submit_at_once,
        (b"GET", LEADERBOARD_PATH.encode()): scores.leaderboard_at_once,
        (b"GET", POLL_PATH.encode()): poll,
    }
