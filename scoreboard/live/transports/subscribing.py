"""What a viewer is sent when it identifies itself or subscribes: the same on the WebSocket and on the stream.

Tested with both: tests/live/transports/test_conversation.py, test_sse.py.
"""

from uuid import UUID

from scoreboard.domain import protocol
from scoreboard.domain.boards import Board
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.domain.protocol import Event
from scoreboard.live.dependencies import LiveDependencies
from scoreboard.live.viewer import Viewer


async def send_identity(live: LiveDependencies, viewer: Viewer, user: UUID) -> None:
    """Sends a viewer its user, score and rank, or the user alone when no store answers. Cancelling sends nothing."""
    score = rank = None
    try:
        score, rank = await live.standings.standing(user)
    except StorageUnavailable:
        pass  # the viewer gets score and rank with its next action, or sees them on the board
    live.hub.send(viewer, viewer.encode(Event.AUTHENTICATED, protocol.authenticated(user, score, rank), ""))


async def subscribe(live: LiveDependencies, viewer: Viewer, board: Board, *, delta: bool, since: str) -> None:
    """Subscribes a viewer to a board: sends `subscribed`, then what it lacks of the board. Returns when both were
    sent.

    When no store gives the board: what was published last, if anything was, and `leaderboard:stale` after it.
    Cancelling leaves the viewer subscribed.
    """
    hub = live.hub
    must_refresh = hub.subscribe(
        viewer, board, delta=delta, since=since
    )  # first: it gets what is published from here on
    confirmation = protocol.subscribed(board.id, heartbeat=viewer.wants_heartbeat)
    hub.send(viewer, viewer.encode(Event.SUBSCRIBED, confirmation, ""))
    if must_refresh:
        try:
            await live.batcher.refresh(board)
        except StorageUnavailable:
            hub.send_latest(viewer, board)
            hub.send(viewer, viewer.encode(Event.STALE, protocol.stale(board.id, round(live.clock.now() * 1000)), ""))
            # The next frames go to it whole: only a whole board says that the board is live again.
            hub.subscribe(viewer, board, delta=delta)
            return
    hub.send_latest(viewer, board)
