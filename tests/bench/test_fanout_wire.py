"""What is cut out of a chunk of bytes, and what a message shows: `tests/bench/fanout_wire.py`."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain.framing import text_frame
from tests.bench import fanout_wire as wire
from tests.bench.fanout_wire import Shown

BOARD = {
    "leaderboard": [{"userId": "u", "score": 70, "rank": 1}],
    "changedPositions": [],
    "position": "1-5",
    "timestamp": "t",
}


def event(data: object) -> bytes:
    return b"id: 1-5\nevent: leaderboard:update\ndata: " + json.dumps(data).encode() + b"\n\n"


def response(data: object) -> bytes:
    body = json.dumps(data).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (wire.cut_frames, text_frame(b"x" * 70)),
        (wire.cut_frames, text_frame(b"x" * 1200)),
        (wire.cut_frames, b"\x89\x00"),
        (wire.cut_events, event(BOARD)),
        (wire.cut_responses, response(BOARD)),
        (wire.cut_responses, b"HTTP/1.1 204 No Content\r\n\r\n"),
    ],
)
@given(ends=st.lists(st.integers(1, 4000), max_size=8))
def test_messages_come_out_whole_however_they_arrive(cut, message, ends) -> None:  # type: ignore[no-untyped-def]
    """Three in a row, delivered in any pieces, are three, and nothing is left."""
    data, found, rest, at = message * 3, [], b"", 0
    for end in [*sorted(end for end in ends if end < len(data)), len(data)]:
        messages, rest = cut(rest + data[at:end])
        found += messages
        at = end
    assert (found, rest) == ([message] * 3, b"")


def test_a_board_is_read_on_every_transport() -> None:
    """Frame, event and response show the same position and scores."""
    shown = Shown("1-5", {"u": 70}, None)
    update = json.dumps({"event": "leaderboard:update", "data": BOARD}).encode()
    assert wire.read_message(wire.frame_payload(text_frame(update))) == shown
    assert wire.read_message(wire.event_payload(event({"event": "leaderboard:update", "data": BOARD}))) == shown
    assert wire.read_message(wire.response_payload(response({"success": True, "data": BOARD}))) == shown


def test_what_is_not_a_board_is_none() -> None:
    """Personal events, counts of viewers, comments and empty answers are not shown boards."""
    for payload in (
        b'{"event":"score:personal","data":{"newScore":1,"position":"1-5"}}',
        b'{"event":"viewers","data":{"count":3}}',
        b'{"event":"pong"}',
        b"",
    ):
        assert wire.read_message(payload) is None


def test_a_delta_shows_the_scores_that_changed() -> None:
    """Its position is the board's, its scores are those in it."""
    data = {
        "position": "1-6",
        "previousPosition": "1-5",
        "changed": [{"userId": "u", "score": 80}],
        "removed": [],
        "timestamp": "t",
    }
    assert wire.read_message(json.dumps({"event": "leaderboard:delta", "data": data}).encode()) == Shown(
        "1-6", {"u": 80}, None
    )
