"""Cuts a client's bytes into WebSocket frames and counts them, before the library parses anything (RFC 6455, 5.2).

There is a `FrameBuffer` for each connection. It returns what may be parsed now: control frames at once, a message when
it is complete. So the library never holds a part of a message, and a flood of tiny frames costs a loop here instead of
a parse there. The library checks the payload (UTF-8, the code of a Close). No clock and no socket is used here.
"""

from scoreboard.domain.client_messages import MAX_MESSAGE_BYTES
from scoreboard.domain.close_codes import CloseCode

# Of an unfinished message: frames, and reads that brought a part of a frame. One more closes the connection with 1008.
# Browsers send a message in one frame.
MAX_FRAGMENTS = 64

_FINAL, _RESERVED, _OPCODE, _CONTROL, _CLOSE = 0x80, 0x70, 0x0F, 0x08, 0x08  # in a frame's first byte
_MASKED, _LENGTH = 0x80, 0x7F  # in its second
_OPCODES = frozenset((0x0, 0x1, 0x2, 0x8, 0x9, 0xA))
_SHORT = 125  # bytes of payload; longer ones write their length behind the second byte, and no control frame has one
_MASK_BYTES = 4


class FrameBuffer:
    """The bytes of one connection that cannot be parsed yet.

    Bound: one message of MAX_MESSAGE_BYTES and its frames' heads, about 5 KiB. More closes the connection with 1009.
    """

    __slots__ = ("_fragments", "_pieces", "_size", "_tail", "frame_count")

    def __init__(self) -> None:
        self._fragments = b""  # whole frames of a message whose last frame has not come
        self._tail = b""  # the beginning of a frame
        self._size = 0  # bytes of payload in `_fragments`
        self._pieces = 0  # of what is unfinished
        self.frame_count = 0  # since the caller set it to 0

    def __len__(self) -> int:
        """Bytes that are held."""
        return len(self._fragments) + len(self._tail)

    def feed(self, data: bytes, max_frames: int) -> bytes | CloseCode:
        """Adds bytes that came. Returns what may be parsed now, b"" for nothing yet; or why the connection must be
        closed, and nothing be parsed.

        `max_frames`: more may not have come since `frame_count` was 0. What follows a Close frame is ignored.
        """
        if self._tail:
            data, self._tail = self._tail + data, b""
        complete, start, place = b"", 0, 0  # complete: what may be parsed of the bytes up to data[start]
        while place < len(data):
            head, size = _head_and_payload(data, place, is_continued=bool(self._fragments))
            if isinstance(head, CloseCode):
                return head
            is_control = data[place] & _CONTROL
            if not is_control and self._size + size > MAX_MESSAGE_BYTES:
                return CloseCode.TOO_BIG
            end = place + head + size
            if end > len(data):
                break
            self.frame_count += 1
            if self.frame_count > max_frames:
                return CloseCode.POLICY
            if data[place] & _OPCODE == _CLOSE:
                return complete + data[start:end]
            if not is_control and (self._fragments or not data[place] & _FINAL):
                complete += data[start:place] + self._add_fragment(data[place:end], size)
                start = end
            elif not self._fragments:
                self._pieces = 0  # a whole message in one frame: nothing is unfinished
            place = end
        self._tail = data[place:]
        if self._tail:
            self._pieces += 1
        return CloseCode.POLICY if self._pieces > MAX_FRAGMENTS else complete + data[start:place]

    def _add_fragment(self, frame: bytes, size: int) -> bytes:
        """The whole message if this is its last frame, else nothing."""
        fragments = self._fragments + frame
        if frame[0] & _FINAL:
            self._fragments, self._size, self._pieces = b"", 0, 0
            return fragments
        self._fragments = fragments
        self._size += size
        self._pieces += 1
        return b""


def _head_and_payload(data: bytes, place: int, *, is_continued: bool) -> tuple[int | CloseCode, int]:
    """Bytes of the head of the frame at `place`, and of its payload. Or why there can be no such frame.

    While the head is not complete, it seems to end behind the data. `is_continued`: a message has begun, and its last
    frame has not come.
    """
    available = len(data) - place
    if available < 2:
        return available + 1, 0
    first, second = data[place], data[place + 1]
    opcode, size = first & _OPCODE, second & _LENGTH
    if first & _RESERVED or opcode not in _OPCODES or not second & _MASKED:
        return CloseCode.PROTOCOL, 0
    if opcode & _CONTROL:
        return (2 + _MASK_BYTES, size) if first & _FINAL and size <= _SHORT else (CloseCode.PROTOCOL, 0)
    if is_continued is bool(opcode):
        return CloseCode.PROTOCOL, 0  # a continuation of nothing, or a second message in the middle of the first
    if size <= _SHORT:
        return 2 + _MASK_BYTES, size
    extended, minimum = (2, _SHORT + 1) if size == _SHORT + 1 else (8, 65_536)
    if available < 2 + extended:
        return available + 1, 0
    size = int.from_bytes(data[place + 2 : place + 2 + extended], "big")
    if size < minimum or size >> 63:
        return CloseCode.PROTOCOL, 0  # a length has one form only
    return 2 + extended + _MASK_BYTES, size
