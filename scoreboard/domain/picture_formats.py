"""The format of a picture, from its bytes: its media type, and bounds of its size when it is drawn. Pure.

`checked_media_type` is called for each fetched picture, in a thread: the worst 256 KiB take about 30 milliseconds. A
file of a few kB can need gigabytes in the browser of each viewer, so the declared sides and frames are bounded. Nothing
is decoded. When a file declares several sizes, all of them are bounded, since a decoder may use any.
"""

from collections.abc import Iterator
from typing import NamedTuple

MAX_SIDE_PIXELS = 1024  # a face is drawn with at most 80 pixels of CSS; twenty-two of these take 88 MiB in a browser
# of all frames together: 16 of the largest size, 256 of 256 pixels a side; 64 MiB if a browser keeps them all
MAX_PIXELS = 16 * 2**20
MAX_JPEG_SCANS = 100  # each makes the decoder pass over the whole picture again; usual progressive files have ten

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER = _PNG_SIGNATURE + b"\x00\x00\x00\x0dIHDR"
_JPEG_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # ITU T.81 table B.1: those three are no frame headers
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # TEM, RSTn: no length follows
# garbage, a second beginning, the end, or a scan before there is a size
_JPEG_UNREADABLE = frozenset({0x00, 0xD8, 0xD9, 0xDA})


class Size(NamedTuple):
    """A size in pixels. `frames`: at least as many as a decoder finds."""

    width: int
    height: int
    frames: int = 1


def checked_media_type(content: bytes) -> str | None:
    """The media type of a picture that may be shown. None when the content is no picture, has no readable size, or is
    too large when it is drawn."""
    kind = media_type(content)
    size = _SIZES[kind](content) if kind else None
    if size is None or not (0 < size.width <= MAX_SIDE_PIXELS and 0 < size.height <= MAX_SIDE_PIXELS):
        return None
    return kind if size.width * size.height * size.frames <= MAX_PIXELS else None


def media_type(content: bytes) -> str | None:
    """The media type by the first bytes; None for any but five formats. The sender's Content-Type is ignored. SVG is
    refused, since it can contain scripts."""
    if content.startswith(_PNG_SIGNATURE):
        return "image/png"
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "image/webp"
    if content[4:12] == b"ftypavif":
        return "image/avif"
    return None


# ---- the size of each kind ------------------------------------------------------------------------------------------
# A slice beyond the end is empty and reads as the number 0, which is no valid size. So truncated files need no special
# case.


def _png_size(content: bytes) -> Size | None:
    """From IHDR, which is the first chunk. Every frame after the first needs an fcTL chunk, so their names can't be too
    few."""
    if not content.startswith(_PNG_HEADER):
        return None
    animation = content.find(b"acTL")
    declared = _big(content[animation + 4 : animation + 8]) if animation >= 0 else 1
    return Size(_big(content[16:20]), _big(content[20:24]), max(1, declared, content.count(b"fcTL")))


def _jpeg_size(content: bytes) -> Size | None:
    """From the frame header (SOFn), which comes before the first scan. A picture with more than MAX_JPEG_SCANS has
    none."""
    if content.count(b"\xff\xda") > MAX_JPEG_SCANS:
        return None
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _JPEG_SOF:
            return Size(width=_big(content[at + 7 : at + 9]), height=_big(content[at + 5 : at + 7]))
        elif marker in _JPEG_ALONE:
            at += 2
        elif marker in _JPEG_UNREADABLE:
            return None
        else:
            at += 2 + max(2, _big(content[at + 2 : at + 4]))  # less than 2 is an error in decoders
    return None


def _gif_size(content: bytes) -> Size | None:
    """The logical screen, made larger by each frame that does not fit, as browsers do with the first one."""
    width, height, frames = _little(content[6:8]), _little(content[8:10]), 0
    at = 13 + _color_table_bytes(content[10:11])
    while at < len(content):
        block = content[at]
        if block == 0x2C:  # an image descriptor
            frames += 1
            left, top = _little(content[at + 1 : at + 3]), _little(content[at + 3 : at + 5])
            width = max(width, left + _little(content[at + 5 : at + 7]))
            height = max(height, top + _little(content[at + 7 : at + 9]))
            # with the byte before the data: the size of its codes
            at += 11 + _color_table_bytes(content[at + 9 : at + 10])
        elif block == 0x21:  # an extension
            at += 2
        else:  # the trailer, or what decoders end at
            break
        while at < len(content) and content[at]:  # sub-blocks, until an empty one
            at += 1 + content[at]
        at += 1
    return Size(width, height, max(1, frames))


def _webp_size(content: bytes) -> Size | None:
    """The largest that any chunk declares: the canvas (VP8X), lossy (VP8) and lossless data (VP8L)."""
    width = height = 0
    for name, start in _riff_chunks(content):
        head = content[start : start + 10]
        if name == b"VP8X":
            found = 1 + _little(head[4:7]), 1 + _little(head[7:10])
        elif name == b"VP8L" and head[:1] == b"\x2f":
            bits = _little(head[1:5])
            found = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        elif name == b"VP8 " and head[3:6] == b"\x9d\x01\x2a":
            found = _little(head[6:8]) & 0x3FFF, _little(head[8:10]) & 0x3FFF
        else:
            continue
        width, height = max(width, found[0]), max(height, found[1])
    return Size(width, height, max(1, content.count(b"ANMF")))


def _avif_size(content: bytes) -> Size | None:
    """The largest size that any `ispe` property declares. None for sequences (`moov`): only still pictures are
    accepted."""
    if b"moov" in content:
        return None
    width = height = 0
    at = content.find(b"ispe")
    while at >= 0:
        width, height = max(width, _big(content[at + 8 : at + 12])), max(height, _big(content[at + 12 : at + 16]))
        at = content.find(b"ispe", at + 4)
    return Size(width, height)


_SIZES = {
    "image/png": _png_size,
    "image/jpeg": _jpeg_size,
    "image/gif": _gif_size,
    "image/webp": _webp_size,
    "image/avif": _avif_size,
}


def _riff_chunks(content: bytes) -> Iterator[tuple[bytes, int]]:
    """Name and start of each chunk's data."""
    at = 12
    while at + 8 <= len(content):
        yield content[at : at + 4], at + 8
        size = _little(content[at + 4 : at + 8])
        at += 8 + size + (size & 1)


def _color_table_bytes(flags: bytes) -> int:
    """GIF: of a global or a local table."""
    packed = _big(flags)
    return 3 * 2 ** ((packed & 7) + 1) if packed & 0x80 else 0


def _big(part: bytes) -> int:
    return int.from_bytes(part, "big")


def _little(part: bytes) -> int:
    return int.from_bytes(part, "little")
