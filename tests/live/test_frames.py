"""A client's frames, cut and counted: `live/frames.py`."""

from collections.abc import Iterator
from itertools import chain, cycle, repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain.client_messages import MAX_MESSAGE_BYTES
from scoreboard.domain.close_codes import CloseCode
from scoreboard.live.frames import MAX_FRAGMENTS, FrameBuffer
from tests.live.messages import masked, one_by_one

MANY = 10**9  # frames, where their number does not matter
HEAD_BYTES = 8  # of a client's frame of at most 64 KiB, at most
SHORTEST_CUT = 30  # bytes: a message of `valid` has at most 1,400 in 12 frames, so at most 59 pieces


def fragments(count: int, payload: bytes = b"") -> bytes:
    """The beginning of a message in so many frames; its last frame is missing."""
    return masked(1, payload, final=False) + masked(0, payload, final=False) * (count - 1)


FORBIDDEN = {
    "without a mask": bytes([0x81, 2]) + b"{}",
    "an unknown opcode": masked(3),
    "an unknown control opcode": masked(15),
    "the first reserved bit": bytes([0xC1, 0x80, 0, 0, 0, 0]),
    "the last reserved bit": bytes([0x91, 0x80, 0, 0, 0, 0]),
    "a ping in two fragments": masked(9, b"a", final=False),
    "a close in two fragments": masked(8, b"\x03\xe8", final=False),
    "a ping of 126 bytes": masked(9, b"x" * 126),
    "a continuation of nothing": masked(0, b"x"),
    "a second message in the first": masked(1, b"a", final=False) + masked(1, b"b"),
    "two bytes for a length that needs none": b"\x81\xfe\x00\x7d" + bytes(4) + b"x" * 125,
    "eight bytes for a length that needs two": b"\x81\xff" + (65_535).to_bytes(8, "big") + bytes(4),
    "a length of 2 to the 63rd": b"\x81\xff" + (1 << 63).to_bytes(8, "big") + bytes(4),
}


@pytest.mark.parametrize("data", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_what_the_protocol_forbids(data: bytes) -> None:
    """1002 as soon as the head shows it, in one read or byte by byte, before the payload has come."""
    assert FrameBuffer().feed(data, MANY) is CloseCode.PROTOCOL
    buffer = FrameBuffer()
    answers = [buffer.feed(byte, MANY) for byte in one_by_one(data)]
    assert CloseCode.PROTOCOL in answers
    assert set(answers[: answers.index(CloseCode.PROTOCOL)]) <= {b""}


@pytest.mark.parametrize(
    "data",
    [
        masked(1, b"x" * (MAX_MESSAGE_BYTES + 1)),
        masked(1, b"x" * (MAX_MESSAGE_BYTES + 1))[:4],
        masked(2, b"x" * 70_000)[:10],
        masked(1, b"x" * MAX_MESSAGE_BYTES, final=False) + masked(0, b"x"),
        fragments(MAX_FRAGMENTS, b"x" * (MAX_MESSAGE_BYTES // MAX_FRAGMENTS)) + masked(0, b"x"),
    ],
)
def test_a_message_that_is_too_big(data: bytes) -> None:
    """1009 as soon as a head shows it, also when no fragment is too big by itself."""
    assert FrameBuffer().feed(data, MANY) is CloseCode.TOO_BIG


def test_control_frames_do_not_wait_for_an_unfinished_message() -> None:
    """A ping between two fragments is returned at once; the message follows when it is complete, with its frames as
    they came."""
    buffer = FrameBuffer()
    assert buffer.feed(masked(1, b"a", final=False) + masked(9, b"ping"), MANY) == masked(9, b"ping")
    assert buffer.feed(masked(0, b"b", final=False), MANY) == b""
    whole = masked(1, b"a", final=False) + masked(0, b"b", final=False) + masked(0, b"c")
    assert buffer.feed(masked(0, b"c") + masked(1, b"next"), MANY) == whole + masked(1, b"next")
    assert len(buffer) == 0


def test_what_follows_a_close_is_ignored() -> None:
    """What came before the Close is returned."""
    assert FrameBuffer().feed(masked(1, b"x") + masked(8) + b"\xff\xff\xff", MANY) == masked(1, b"x") + masked(8)


def test_frames_over_the_budget_are_not_returned() -> None:
    """Not one of them, nor those in the same read that were within it; the caller begins a new count."""
    buffer = FrameBuffer()
    assert buffer.feed(masked(9) * 5, 5) == masked(9) * 5
    assert buffer.feed(masked(9), 5) is CloseCode.POLICY
    buffer.frame_count = 0
    assert buffer.feed(masked(9) * 5, 5) == masked(9) * 5
    assert FrameBuffer().feed(fragments(6), 5) is CloseCode.POLICY


@pytest.mark.parametrize("frame", [b"", b"x"])
def test_an_unfinished_message_has_so_many_fragments(frame: bytes) -> None:
    """One more is 1008, however slowly they come; a message with fewer may be followed by another such."""
    buffer = FrameBuffer()
    for _ in range(3):
        assert buffer.feed(fragments(MAX_FRAGMENTS, frame), MANY) == b""
        assert buffer.feed(masked(0, frame), MANY) == fragments(MAX_FRAGMENTS, frame) + masked(0, frame)
    assert buffer.feed(fragments(MAX_FRAGMENTS + 1, frame), MANY) is CloseCode.POLICY


def test_an_unfinished_frame_comes_in_so_many_reads() -> None:
    """Byte by byte a frame may have as many as there may be pieces; a long one is 1008 before it is complete."""
    buffer, short = FrameBuffer(), masked(1, b"x" * (MAX_FRAGMENTS - 6))
    for _ in range(3):
        assert [buffer.feed(byte, MANY) for byte in one_by_one(short)] == [b""] * (MAX_FRAGMENTS - 1) + [short]
    answers = [buffer.feed(byte, MANY) for byte in one_by_one(masked(1, b"x" * MAX_FRAGMENTS))]
    assert answers[: MAX_FRAGMENTS + 1] == [b""] * MAX_FRAGMENTS + [CloseCode.POLICY]


@pytest.mark.parametrize(
    "frame", [masked(1, b"{}"), masked(9, b"ping"), masked(1, b"{", final=False) + masked(0, b"}")]
)
def test_pieces_of_complete_frames_do_not_count(frame: bytes) -> None:
    """Reads that each bring the end of one message or control frame and the beginning of the next may go on for
    ever."""
    buffer, half = FrameBuffer(), len(frame) // 2
    assert buffer.feed(frame[:half], MANY) == b""
    for _ in range(10 * MAX_FRAGMENTS):
        assert buffer.feed(frame[half:] + frame[:half], MANY) == frame
    assert buffer.feed(frame[half:], MANY) == frame


def test_pieces_of_a_complete_frame_do_not_count_for_the_message_after_it() -> None:
    """Its fragments are as many as ever, also when the first one came in the read that completed the frame before."""
    buffer, before = FrameBuffer(), masked(1, b"x" * 50)
    assert [buffer.feed(byte, MANY) for byte in one_by_one(before[:-1])] == [b""] * (len(before) - 1)
    assert buffer.feed(before[-1:] + fragments(MAX_FRAGMENTS), MANY) == before
    assert buffer.feed(masked(0), MANY) == fragments(MAX_FRAGMENTS) + masked(0)


opcodes = st.sampled_from([0, 1, 2, 8, 9, 10])
payloads = st.binary(max_size=300) | st.integers(100, 300).map(bytes)
whole = st.builds(masked, st.sampled_from([1, 2]), payloads)  # a message in one frame, as browsers send it
valid = st.builds(
    lambda payloads, controls: b"".join(
        masked(0 if place else 1, payload, final=place == len(payloads) - 1)
        + b"".join(masked(code, b"c") for code in controls[place])
        for place, payload in enumerate(payloads)
    ),
    st.lists(payloads, min_size=1, max_size=4),
    st.lists(st.lists(st.sampled_from([9, 10]), max_size=2), min_size=4, max_size=4),
)


@given(
    st.lists(valid, min_size=1, max_size=5) | st.lists(whole, min_size=1, max_size=5),
    st.lists(st.integers(1, 400), min_size=1, max_size=20),
    st.booleans(),
)
def test_however_it_is_cut_the_result_is_the_same(messages: list[bytes], cuts: list[int], is_long: bool) -> None:
    """Valid messages with control frames between their fragments, in few reads or in many: the result is the same as in
    one read."""
    data = b"".join(messages)
    sizes: Iterator[int] = chain(cuts, repeat(MAX_MESSAGE_BYTES))
    if is_long:
        data *= 1 + 3 * MAX_FRAGMENTS * max(cuts) // len(data)
        sizes = cycle(max(cut, SHORTEST_CUT) for cut in cuts)
    in_one_read = FrameBuffer().feed(data, MANY)
    buffer, given_back, size = FrameBuffer(), b"", len(data)
    while data:
        cut = next(sizes)
        part, data = data[:cut], data[cut:]
        answer = buffer.feed(part, MANY)
        assert isinstance(answer, bytes)
        given_back += answer
    assert given_back == in_one_read
    assert (len(buffer), len(given_back)) == (0, size)


@given(
    st.lists(
        st.binary(max_size=40) | st.builds(masked, opcodes, st.binary(max_size=5_000), final=st.booleans()), max_size=80
    )
)
def test_nothing_that_is_sent_raises_or_is_held_for_long(sent: list[bytes]) -> None:
    """Whatever comes: what is held stays below a message and the heads of its frames."""
    buffer = FrameBuffer()
    for data in sent:
        if isinstance(buffer.feed(data, MANY), CloseCode):
            break
        assert len(buffer) <= MAX_MESSAGE_BYTES + (MAX_FRAGMENTS + 1) * HEAD_BYTES
