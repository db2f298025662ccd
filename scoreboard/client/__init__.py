"""The Python client: a board that follows the server's, and a session that submits signed actions. For Trio.

    async with log_in(url, "demo", "scoreboard-demo") as session, connect(url, session=session) as board:
        await session.submit("task_finish", {"difficulty": "hard", "timeSpent": 120})
        async for update in board:
            print(update.position, update.entries)

`board` and `protocol` decide without waiting for anything, `backoff` says when to try again; `live` and `session` do the input and output.
Imports nothing of the server but values (`domain`) and the signature (`security`).
"""

from scoreboard.client.board import Board
from scoreboard.client.errors import ClientError, Closed, Refused, Unreachable
from scoreboard.client.live import LiveBoard, connect
from scoreboard.client.protocol import Personal, Standing
from scoreboard.client.session import Credentials, Outcome, Session, log_in
from scoreboard.domain.boards import Entry

__all__ = [
    "Board",
    "ClientError",
    "Closed",
    "Credentials",
    "Entry",
    "LiveBoard",
    "Outcome",
    "Personal",
    "Refused",
    "Session",
    "Standing",
    "Unreachable",
    "connect",
    "log_in",
]
