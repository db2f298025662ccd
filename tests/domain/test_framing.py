"""Frames and stream events, as other implementations read them."""

from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Ping, TextMessage

from scoreboard.domain import framing
from scoreboard.domain.close_codes import CloseCode, close_reason
from scoreboard.domain.protocol import Event


@given(st.text(max_size=200) | st.sampled_from(["x" * 125, "x" * 126, "x" * 65_535, "x" * 65_536]))
def test_a_text_frame_is_read_as_its_text(text: str) -> None:
    """Another implementation reads each frame as one whole message, at every length of the length."""
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(framing.text_frame(text.encode()))
    events = list(client.events())
    assert all(isinstance(event, TextMessage) for event in events)
    assert "".join(event.data for event in events if isinstance(event, TextMessage)) == text


def test_a_close_frame_has_the_code_and_the_reason() -> None:
    """Another implementation reads both from every close frame."""
    for code in CloseCode:
        client = Connection(ConnectionType.CLIENT)
        client.receive_data(framing.close_frame(code))
        assert list(client.events()) == [CloseConnection(code, close_reason(code))]


def test_the_ping_frame_is_an_empty_ping() -> None:
    """Browsers answer it by themselves."""
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(framing.PING_FRAME)
    assert list(client.events()) == [Ping(b"")]


def test_a_stream_event_has_the_position_as_its_id() -> None:
    """Only an event after which the viewer has another board carries an id: the browser sends the newest one back."""
    assert framing.event_stream(Event.UPDATE, b"{}", "1-2") == b"event: leaderboard:update\nid: 1-2\ndata: {}\n\n"
    assert framing.event_stream(Event.PERSONAL, b"{}") == b"event: score:personal\ndata: {}\n\n"
