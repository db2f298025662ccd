"""What tests of commands share: the streams of a command, what it prints, and what is in its database."""

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from scoreboard.security import passwords
from tests.conftest import in_asyncio


@dataclass
class Result:
    code: int
    out: str
    err: str


class Stream(io.TextIOWrapper):
    """Standard input or output that is a file."""

    def __init__(self, content: bytes = b"") -> None:
        self.content = io.BytesIO(content)
        super().__init__(self.content, encoding="utf-8", write_through=True)

    @property
    def text(self) -> str:
        return self.content.getvalue().decode()


Command = Callable[..., Result]


def execute(environment: dict[str, str], *statements: str) -> list[tuple[Any, ...]]:
    """Runs statements; the rows of the last one."""
    import asyncpg

    async def run() -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(environment["SCOREBOARD_POSTGRES__URL"])
        try:
            rows = [await connection.fetch(statement) for statement in statements][-1]
        finally:
            await connection.close()
        return [tuple(row) for row in rows]

    return in_asyncio(run)


def names(environment: dict[str, str]) -> list[str]:
    return [row[0] for row in execute(environment, 'SELECT username FROM users ORDER BY username COLLATE "C"')]


def is_right(environment: dict[str, str], password: str, name: str = "Ada") -> bool:
    ((stored,),) = execute(
        environment, f"SELECT password_hash FROM credentials JOIN users ON id = user_id WHERE username = '{name}'"
    )
    return passwords.verify(stored, password)


@contextmanager
def unchanged_logging() -> Iterator[None]:
    """Commands say where logs go: afterwards they go where they went."""
    config, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        structlog.configure(**config)
        root.handlers[:] = handlers
        root.setLevel(level)
