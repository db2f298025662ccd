"""Lua scripts: each runs in Redis as one step. `whole.lua` is prepended to those that rely on a whole board.

Tested in tests/storage/redis/test_projection.py.
"""

from functools import cache
from importlib.resources import files


@cache
def load_script(name: str) -> str:
    """The text of a Lua script of this folder."""
    return files("scoreboard.storage.redis.scripts").joinpath(name).read_text("utf-8")


def load_board_script(name: str) -> str:
    """The text of a Lua script that relies on a whole board, with `whole.lua`, which checks that, before it."""
    return load_script("whole.lua") + load_script(name)
