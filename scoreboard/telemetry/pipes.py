"""Writing text to a stream that may be a pipe which nobody reads.

A write to a full pipe, or to the socket of a log daemon that hangs, waits for its reader, and the whole process with
it. `writer_of` gives a function that never waits there: what there is no room for is not written. Files and terminals
are written as Python does. Nothing here changes how others who share the pipe see it: O_NONBLOCK would, so the pipe is
opened anew where the system can do that.
"""

import os
import select
import socket
import stat
from collections.abc import Callable
from typing import TextIO
from weakref import finalize

Write = Callable[[str], bool]
"""Writes a text. False: there was no room, and nothing of it was written. Raises OSError or ValueError when the stream
is closed."""


def writer_of(stream: TextIO) -> Write:
    """How to write to `stream` without waiting for whoever reads it."""
    try:
        descriptor = stream.fileno()
        mode = os.fstat(descriptor).st_mode
    except (OSError, ValueError):  # in memory, or closed
        return _plainly(stream)
    if stat.S_ISSOCK(mode):
        return _Rest(_socket_sender(descriptor))
    if stat.S_ISFIFO(mode):
        return _Rest(_pipe_writer(descriptor))
    return _plainly(stream)


def _plainly(stream: TextIO) -> Write:
    def write(text: str) -> bool:
        stream.write(text)
        stream.flush()
        return True

    return write


class _Rest:
    """Keeps what a short write left of one text, so that no line is cut: nothing else is written before it."""

    def __init__(self, write: Callable[[bytes], int]) -> None:
        self._write, self._rest = write, b""

    def __call__(self, text: str) -> bool:
        if self._rest:
            self._rest = self._rest[self._write(self._rest) :]
            if self._rest:
                return False
        data = text.encode(errors="backslashreplace")
        written = self._write(data)
        if not written:
            return False
        self._rest = data[written:]
        return True


def _pipe_writer(descriptor: int) -> Callable[[bytes], int]:
    """As many bytes as there is room for, by a description of our own; 0 for none."""
    try:
        own = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # a system without /proc; a pipe of another account's, as in a container
        return _polled_pipe_writer(descriptor)

    def write(data: bytes) -> int:
        try:
            return os.write(own, data)
        except BlockingIOError:
            return 0

    finalize(write, os.close, own)
    return write


def _polled_pipe_writer(descriptor: int) -> Callable[[bytes], int]:
    """The same, asking first. A pipe with room takes PIPE_BUF bytes at once: no more are written without asking again.

    Should another process fill it between the question and the write, this waits for the reader after all.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)

    def write(data: bytes) -> int:
        written = 0
        while written < len(data) and poll.poll(0):
            written += os.write(descriptor, data[written : written + select.PIPE_BUF])
        return written

    return write


def _socket_sender(descriptor: int) -> Callable[[bytes], int]:
    """The same for a stream socket, as systemd and some container runtimes give one."""
    own = socket.socket(fileno=os.dup(descriptor))

    def write(data: bytes) -> int:
        try:
            return own.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    finalize(write, own.close)
    return write
