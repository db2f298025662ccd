"""The Python client: a board that follows the server's, and a session that submits signed actions. For Trio; for
asyncio the same names are in scoreboard.client.asyncio.

    async with log_in(url, "demo", "scoreboard-demo") as session, connect(url, session=session) as board:
        await session.submit("task_finish", {"difficulty": "hard", "timeSpent": 120})
        async for update in board:
            print(update.position, update.entries)

One core is Sans-I/O: `board` and `subscription` (frames), `following` (connections), `exchanges` (requests), `backoff`,
`clock`, `addresses`. Two shells do the input and output: `session`, `connection`, `tunnel` and `live` on Trio,
`asyncio` on asyncio. Both share the methods of a session (`base_session`) and of a game's server (`base_server`, with
`server` on Trio). Of the server it imports only values
(`domain`) and the signature (`security.signing`), and none of the packages that only the server needs.

Tested in tests/client/test_installation.py.
"""

from scoreboard.client.addresses import open_http
from scoreboard.client.base_server import BulkAction, BulkOutcome, ServerUser
from scoreboard.client.board import Board
from scoreboard.client.errors import ActionHeld, ClientError, Closed, Refused, Unreachable
from scoreboard.client.exchanges import Credentials, Outcome, Started, new_device_key
from scoreboard.client.live import LiveBoard, connect
from scoreboard.client.server import ServerClient, open_server
from scoreboard.client.session import Session, exchange, log_in, log_in_as_guest
from scoreboard.client.subscription import Personal, Standing
from scoreboard.domain.boards import Entry

__all__ = [
    "ActionHeld",
    "Board",
    "BulkAction",
    "BulkOutcome",
    "ClientError",
    "Closed",
    "Credentials",
    "Entry",
    "LiveBoard",
    "Outcome",
    "Personal",
    "Refused",
    "ServerClient",
    "ServerUser",
    "Session",
    "Standing",
    "Started",
    "Unreachable",
    "connect",
    "exchange",
    "log_in",
    "log_in_as_guest",
    "new_device_key",
    "open_http",
    "open_server",
]
