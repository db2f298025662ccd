"""How large a picture is when it is drawn, by what it declares."""

import zlib
from base64 import b64decode

import pytest

from scoreboard.domain import picture_formats
from scoreboard.domain.picture_formats import MAX_JPEG_SCANS, MAX_SIDE_PIXELS, Size, checked_media_type

# As Pillow writes them: 3 × 2 pixels, black.
PNG = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAMAAAACCAIAAAASFvFNAAAAC0lEQVR4nGNgwAQAABQAAX3+Hu4AAAAASUVORK5CYII=")
GIF = b64decode("R0lGODdhAwACAIEAAAAAAAAAAAAAAAAAACwAAAAAAwACAAAIBgABCBwYEAA7")
LOSSY = b64decode("UklGRiQAAABXRUJQVlA4IBgAAAAwAQCdASoDAAIAAUAmJaQAA3AA/v02aAA=")
LOSSLESS = b64decode("UklGRhoAAABXRUJQVlA4TA4AAAAvAkAAAAcQEf0PRET/Aw==")
EXTENDED = b64decode(
    "UklGRkYAAABXRUJQVlA4WAoAAAAQAAAAAgAAAQAAQUxQSAcAAAAABAQEBAQEAFZQOCAYAAAAMAEAnQEqAwACAALATCWkAANwAP734IAA"
)
AVIF = b64decode(
    "AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUIAAADrbWV0YQAAAAAAAAAhaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAAAAAAAAAOcGl0bQAAAAAAAQAAAB5pbG9j"
    "AAAAAEQAAAEAAQAAAAEAAAETAAAAIAAAAChpaW5mAAAAAAABAAAAGmluZmUCAAAAAAEAAGF2MDFDb2xvcgAAAABqaXBycAAAAEtpcGNvAAAAFGlzcGUAAAAAAAAAAwAAAAIA"
    "AAAQcGl4aQAAAAADCAgIAAAADGF2MUOBAAwAAAAAE2NvbHJuY2x4AAEADQAGgAAAABdpcG1hAAAAAAAAAAEAAQQBAoMEAAAAKG1kYXQSAAoIGAQrRAQ0GhAyEh7Hh4VZ3///"
    "4sAAAJA1jjx+rQ=="
)
SCAN = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00"


def jpeg(width: int, height: int, before: bytes = b"", marker: bytes = b"\xc0") -> bytes:
    """Up to its first scan. `before`: what stands between the beginning and the frame header."""
    header = b"\xff%b\x00\x0b\x08%b%b\x01\x01\x11\x00" % (marker, height.to_bytes(2, "big"), width.to_bytes(2, "big"))
    return b"\xff\xd8" + before + header + SCAN


JPEG = jpeg(3, 2, b"\xff\xe0\x00\x04\xff\xc0" + b"\xff\xff\xdb\x00\x03\x00")
USUAL = [
    (PNG, "image/png"),
    (JPEG, "image/jpeg"),
    (jpeg(3, 2, marker=b"\xc2"), "image/jpeg"),
    (GIF, "image/gif"),
    (LOSSY, "image/webp"),
    (LOSSLESS, "image/webp"),
    (EXTENDED, "image/webp"),
    (AVIF, "image/avif"),
]


@pytest.mark.parametrize(("content", "kind"), USUAL)
def test_five_kinds_are_taken(content: bytes, kind: str) -> None:
    """Each is known by its first bytes, and its size is read."""
    assert checked_media_type(content) == kind
    assert picture_formats._SIZES[kind](content) == Size(3, 2)


@pytest.mark.parametrize(
    "content", [PNG[:20], JPEG[:20], jpeg(3, 2)[:8], GIF[:6], LOSSY[:22], LOSSLESS[:20], AVIF[:100], PNG[:8] + PNG[24:]]
)
def test_a_picture_without_a_size_is_refused(content: bytes) -> None:
    """It is cut off, or its header is not where it must be."""
    assert checked_media_type(content) is None


def sized(kind: str, width: int, height: int) -> bytes:
    """The usual picture, with another size declared."""
    if kind == "png":
        return PNG[:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big") + PNG[24:]
    if kind == "jpeg":
        return jpeg(width, height)
    if kind == "gif":
        return GIF[:6] + width.to_bytes(2, "little") + height.to_bytes(2, "little") + GIF[10:]
    if kind == "gif frame":
        return GIF.replace(
            b"\x00,\x00\x00\x00\x00\x03\x00\x02\x00",
            b"\x00,\x00\x00\x00\x00%b%b" % (width.to_bytes(2, "little"), height.to_bytes(2, "little")),
        )
    if kind == "lossy":
        return LOSSY[:26] + width.to_bytes(2, "little") + height.to_bytes(2, "little") + LOSSY[30:]
    if kind == "lossless":
        return LOSSLESS[:21] + (width - 1 | (height - 1) << 14).to_bytes(4, "little") + LOSSLESS[25:]
    if kind == "canvas":
        return EXTENDED[:24] + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little") + EXTENDED[30:]
    if kind == "within a canvas":
        return EXTENDED.replace(
            b"\x2a\x03\x00\x02\x00", b"\x2a" + width.to_bytes(2, "little") + height.to_bytes(2, "little")
        )
    at = AVIF.index(b"ispe") + 8
    return AVIF[:at] + width.to_bytes(4, "big") + height.to_bytes(4, "big") + AVIF[at + 8 :]


@pytest.mark.parametrize(
    "kind", ["png", "jpeg", "gif", "gif frame", "lossy", "lossless", "canvas", "within a canvas", "avif"]
)
def test_no_side_has_more_than_1024_pixels(kind: str) -> None:
    """Of whatever part of the file a decoder takes for the size."""
    assert checked_media_type(sized(kind, MAX_SIDE_PIXELS, MAX_SIDE_PIXELS)) is not None
    assert checked_media_type(sized(kind, MAX_SIDE_PIXELS + 1, 2)) is None
    assert checked_media_type(sized(kind, 3, MAX_SIDE_PIXELS + 1)) is None


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "lossy", "avif"])
def test_no_side_has_no_pixels(kind: str) -> None:
    """Decoders differ in what they make of that. A GIF has the size of its first frame then."""
    expected = "image/gif" if kind == "gif" else None
    assert checked_media_type(sized(kind, 0, 2)) == checked_media_type(sized(kind, 3, 0)) == expected


def test_a_small_file_that_takes_gigabytes_is_refused() -> None:
    """A PNG of 20,000 × 20,000 pixels of one bit has 48 kB, and takes 1.5 GiB where it is drawn."""
    side = (20_000).to_bytes(4, "big")
    data = zlib.compress(bytes(20_000 * 2501), 9)
    content = (
        PNG[:16] + side + side + b"\x01\x00\x00\x00\x00" + bytes(4) + len(data).to_bytes(4, "big") + b"IDAT" + data
    )
    assert len(content) < 64 * 1024
    assert checked_media_type(content) is None


@pytest.mark.parametrize(
    "content",
    [
        b"\x89PNG\r\n\x1a\n" + b"\x00\x00\x00\x00tEXt" + bytes(4) + PNG[8:],
        jpeg(3, 2, b"\xff\x01" + b"\xff\xc0\x00\x0b\x08\xff\xff\xff\xff\x01\x01\x11\x00"),
        jpeg(3, 2, b"\xff\xd0" + b"\xff\xc0\x00\x0b\x08\xff\xff\xff\xff\x01\x01\x11\x00"),
        jpeg(3, 2, SCAN),
        jpeg(3, 2, b"\xff\xd8"),
        jpeg(3, 2, b"\x00"),
        AVIF + b"\x00\x00\x00\x14ispe\x00\x00\x00\x00\x00\x00\xff\xff\x00\x00\xff\xff",
        AVIF + b"\x00\x00\x00\x08moov",
        AVIF.replace(b"ftypavif", b"ftypavis"),
    ],
)
def test_a_second_declaration_hides_no_size(content: bytes) -> None:
    """What a decoder could read in another way than we do is refused. So are sequences in AVIF."""
    assert checked_media_type(content) is None


def animated(kind: str, side: int, frames: int) -> bytes:
    if kind == "png":
        return sized("png", side, side) + b"\x00\x00\x00\x1afcTL" * frames
    if kind == "png that declares":
        return sized("png", side, side) + b"\x00\x00\x00\x08acTL" + frames.to_bytes(4, "big")
    if kind == "gif":
        at = GIF.index(b"\x00,") + 1
        still = sized("gif", side, side)
        return still[:at] + (b"!\xf9\x04\x00\x00\x00\x00\x00" + still[at:-1]) * frames + b";"
    return sized("canvas", side, side) + b"ANMF" * frames


@pytest.mark.parametrize("kind", ["png", "png that declares", "gif", "webp"])
def test_frames_are_bounded_together(kind: str) -> None:
    """Sixteen of the largest, or 256 of a quarter of a side."""
    assert checked_media_type(animated(kind, 1024, 16)) is not None
    assert checked_media_type(animated(kind, 1024, 17)) is None
    assert checked_media_type(animated(kind, 256, 256)) is not None
    assert checked_media_type(animated(kind, 256, 257)) is None


def test_scans_of_a_jpeg_are_bounded() -> None:
    """Each of them makes the decoder pass over the whole picture again."""
    assert checked_media_type(JPEG + SCAN * (MAX_JPEG_SCANS - 1)) is not None
    assert checked_media_type(JPEG + SCAN * MAX_JPEG_SCANS) is None
