"""Writing text to a stream that may be a pipe which nobody reads.

A write to a full pipe, or to the socket of a log daemon that hangs, blocks the whole process until its reader reads.
`writer_of` returns a function that does not wait: a text for which there is no room is not written. Files and terminals
are written as Python does. O_NONBLOCK on the shared pipe would change it for other processes too, so the pipe is opened
a second time where the system allows that.
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
    """A function that writes to `stream` without waiting for its reader."""
    try:
        descriptor = stream.fileno()
        mode = os.fstat(descriptor).st_mode
    except (OSError, ValueError):  # in memory, or closed
        return _blocking_writer(stream)
    if stat.S_ISSOCK(mode):
        return _PartialWriteBuffer(_socket_sender(descriptor))
    if stat.S_ISFIFO(mode):
        return _PartialWriteBuffer(_pipe_writer(descriptor))
    return _blocking_writer(stream)


def _blocking_writer(stream: TextIO) -> Write:
    def write(text: str) -> bool:
        stream.write(text)
        stream.flush()
        return True

    return write


class _PartialWriteBuffer:
    """Keeps the rest of a text after a short write, and writes it before the next text. So no line is cut."""

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
    """Writes as many bytes as there is room for, 0 for none, by an open file description of our own."""
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
    """The same by poll(2). A pipe with room takes PIPE_BUF bytes at once, so it polls before each write of that size.

    If another process fills the pipe between the poll and the write, the write blocks until the reader reads.
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
