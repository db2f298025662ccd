"""The Python client for asyncio: the same names as scoreboard.client, which is for Trio.

    async with log_in(url, "demo", "scoreboard-demo") as session, connect(url, session=session) as board:
        await session.submit("task_finish", {"difficulty": "hard", "timeSpent": 120})
        async for update in board:
            print(update.position, update.entries)

The Sans-I/O core is shared with the Trio client (`exchanges`, `subscription`, `following`).
Needs the package websockets: `pip install 'scoreboard[asyncio]'`.

Cancelling: cancel a task (or let `asyncio.timeout` do so) wherever it awaits this client. CancelledError always comes
out. Waiting for a change, iterating and `token` lose nothing. A cancelled `submit` leaves open whether the action was
recorded: give its `action_id` again. A cancelled `refresh` may be repeated within a minute. Cancelled within a
`connect` block, the socket is closed at once; leaving the block without a cancellation sends a Close frame and waits at
most a second. Leaving a `log_in` block logs out first, cancelled or not: that takes two seconds at most. A session and
a board belong to the loop in which they were made.

Tested in tests/client/test_loops.py.
"""

try:
    import websockets as _websockets  # noqa: F401 - the one thing that the base install lacks
except ModuleNotFoundError as exc:
    raise ModuleNotFoundError(
        "scoreboard.client.asyncio needs websockets: pip install 'scoreboard[asyncio]'", name=exc.name
    ) from exc


from scoreboard.client.addresses import open_http
from scoreboard.client.asyncio.live import LiveBoard, connect
from scoreboard.client.asyncio.server import ServerClient, open_server
from scoreboard.client.asyncio.session import Session, exchange, log_in, log_in_as_guest
from scoreboard.client.base_server import BulkAction, BulkOutcome, ServerUser
from scoreboard.client.board import Board
from scoreboard.client.errors import ActionHeld, ClientError, Closed, Refused, Unreachable
from scoreboard.client.exchanges import Credentials, Outcome, Started, new_device_key
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
