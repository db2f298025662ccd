"""What every Python peer of `scripts/bench fanout` sends: as many bytes as a board of this server, ten times a second,
with the time.

The peers begin when they get SIGUSR2: nothing is sent while viewers are still coming. Env: PORT; SIZE, bytes a message.
"""

import os
import time

PORT = int(os.environ["PORT"])
SIZE = int(os.environ["SIZE"])
TICK = 0.1  # seconds

_FILLING = "x" * (SIZE - len('{"filling":"","sent":1700000000000.000}'))


def message() -> str:
    """The time is that of sending, Unix milliseconds, and stands last: messages differ in their last bytes."""
    return f'{{"filling":"{_FILLING}","sent":{time.time() * 1000:.3f}}}'
