"""Log lines into pipes that nobody reads: nothing waits, nothing is cut, and what was lost is counted."""

import io
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from typing import TextIO

import pytest
import structlog

from scoreboard.telemetry import logging as log_lines
from scoreboard.telemetry import metrics, pipes

BIG = "x" * 100_000  # more than a pipe takes at once


@pytest.fixture(params=["pipe", "polled pipe", "socket"])
def ends(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[TextIO, Callable[[], bytes]]]:
    """A stream whose reader reads only when asked: the stream, and a function that reads all that is there now."""
    if request.param == "socket":
        one, other = socket.socketpair()
        reading, writing = other.detach(), one.detach()
    else:
        reading, writing = os.pipe()
    if request.param == "polled pipe":
        monkeypatch.setattr(pipes, "_pipe_writer", pipes._polled_pipe_writer)
    os.set_blocking(reading, False)

    def read() -> bytes:
        found = b""
        while True:
            try:
                part = os.read(reading, 1 << 20)
            except BlockingIOError:
                return found
            if not part:
                return found
            found += part

    with os.fdopen(writing, "w") as stream:
        yield stream, read
        assert os.get_blocking(writing)  # others who share the pipe see no difference
    os.close(reading)


@pytest.fixture
def logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    before = list(root.handlers), root.level
    yield
    root.handlers, level = before
    root.setLevel(level)
    structlog.reset_defaults()
    log_lines.configure("info", "json", stream=io.StringIO())
    root.handlers = before[0]
    structlog.reset_defaults()


def lost() -> float:
    return metrics.REGISTRY.get_sample_value("scoreboard_log_lines_lost_total") or 0


def test_a_full_pipe_never_waits_and_cuts_no_line(
    ends: tuple[TextIO, Callable[[], bytes]], logging_restored: None
) -> None:
    """Lines without end into a pipe that nobody reads: they are lost and counted; read again, whole lines, then how
    many were lost."""
    stream, read = ends
    log_lines.configure("info", "json", stream=stream)
    log, before = structlog.get_logger(), lost()
    for number in range(1_500):
        log.info("line", number=number, text="x" * 200)
    missing = lost() - before
    assert missing > 0
    kept = read()
    log.info("after")
    lines = [json.loads(line) for line in (kept + read()).splitlines()]
    assert [line["event"] for line in lines[-2:]] == ["log_lines_lost", "after"]
    assert lines[-2]["count"] == missing
    assert [line["number"] for line in lines[:-2]] == list(range(1_500 - int(missing)))
    assert lost() - before == missing


def test_a_line_that_is_longer_than_the_pipe_is_finished_later(ends: tuple[TextIO, Callable[[], bytes]]) -> None:
    """What there was no room for goes out before the next line, and until then there is no next line."""
    stream, read = ends
    write = pipes.writer_of(stream)
    while write(BIG + "\n"):
        pass
    found = read()
    while len(found) % (len(BIG) + 1):
        write("")
        found += read()
    assert write("end\n")
    found += read()
    assert set(found.split(b"\n")) == {BIG.encode(), b"end", b""}


def test_a_reader_that_is_gone_is_an_error(ends: tuple[TextIO, Callable[[], bytes]], logging_restored: None) -> None:
    """The log counts the line, and nobody else notices."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        log_lines.configure("info", "json", stream=stream)
        before = lost()
        structlog.get_logger().info("nobody")
        assert lost() == before + 1


def test_announcements_are_plain_on_a_console_and_json_elsewhere(logging_restored: None) -> None:
    """A start's words to people break no line of JSON; on a console they stand as they are."""
    stream = io.StringIO()
    log_lines.configure("error", "json", stream=stream)
    log_lines.announce("\n  scoreboard is live: http://127.0.0.1\n  log in as demo with the password scoreboard-demo\n")
    line = json.loads(stream.getvalue())
    assert line["message"] == "scoreboard is live: http://127.0.0.1 log in as demo with the password scoreboard-demo"
    log_lines.configure("error", "console", stream=(console := io.StringIO()))
    log_lines.announce("\n  scoreboard is live\n")
    assert console.getvalue() == "\n  scoreboard is live\n\n"
