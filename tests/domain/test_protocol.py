"""The catalogue of events and close codes, and their bytes."""

import json
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from scoreboard.domain import protocol as wire
from scoreboard.domain.boards import Entry, Snapshot
from scoreboard.domain.deltas import ChangedPosition

USER = UUID(int=7)


@given(st.text(max_size=200) | st.sampled_from(["x" * 125, "x" * 126, "x" * 65_535, "x" * 65_536]))
def test_a_text_frame_is_read_as_its_text(text: str) -> None:
    """Another implementation reads each frame as one whole message, at every length of the length."""
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(wire.text_frame(text.encode()))
    events = list(client.events())
    assert all(isinstance(event, TextMessage) for event in events)
    assert "".join(event.data for event in events if isinstance(event, TextMessage)) == text


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_any_text_is_a_message_or_none(text: str) -> None:
    """No text whatever raises."""
    wire.read_message(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"action":"ping"}', wire.Ping()),
        ('{"action":"subscribe","channel":"leaderboard","later":1}', wire.Subscribe("leaderboard")),
        ('{"mode":"delta","since":"1-2","channel":"x","action":"subscribe"}', wire.Subscribe("x", "delta", "1-2")),
        ('{"action":"unsubscribe","channel":"leaderboard"}', wire.Unsubscribe("leaderboard")),
        ('{"action":"auth","token":"t"}', wire.Auth("t")),
        ('{"action":"dance"}', None),
        ('{"action":"subscribe"}', None),
        ('{"action":"subscribe","channel":7}', None),
        ('["ping"]', None),
        ("{", None),
        ("", None),
        ("[" * 100_000, None),
        ('{"action":"auth","token":"\\ud800"}', None),
    ],
)
def test_messages(text: str, message: wire.Message | None) -> None:
    """The four actions are read, members of later versions ignored; everything else is no message."""
    assert wire.read_message(text) == message


def test_every_close_code_says_what_to_do() -> None:
    """Each close code has a reason that fits into a control frame and says whether to reconnect."""
    assert set(wire.RECONNECT) == set(wire.WORDS) == set(wire.CloseCode)
    for code in wire.CloseCode:
        text = wire.reason(code)
        assert len(text.encode()) <= 123
        assert text.endswith("; reconnect") == wire.RECONNECT[code]


def test_the_update_has_the_specification_s_shape() -> None:
    """leaderboard:update holds the first ten rows, the changed positions, the position and the time; a missing picture
    is left out."""
    rows = tuple(
        Entry(rank, f"u{rank}", f"Name {rank}", 1000 - rank, "https://example.org/a" if rank == 1 else None)
        for rank in range(1, 13)
    )
    snapshot = Snapshot("leaderboard", 3, 9, 8, 1_768_041_000_000, rows)
    event = json.loads(wire.update(snapshot, (ChangedPosition("u2", 6, 2, 998), ChangedPosition("u99", 10, None, 5))))
    assert event == {
        "event": "leaderboard:update",
        "data": {
            "leaderboard": [
                {"rank": 1, "userId": "u1", "username": "Name 1", "score": 999, "avatarUrl": "https://example.org/a"}
            ]
            + [
                {"rank": rank, "userId": f"u{rank}", "username": f"Name {rank}", "score": 1000 - rank}
                for rank in range(2, 11)
            ],
            "changedPositions": [
                {"userId": "u2", "previousRank": 6, "newRank": 2, "score": 998},
                {"userId": "u99", "previousRank": 10, "newRank": None, "score": 5},
            ],
            "position": "3-8",
            "timestamp": "2026-01-10T10:30:00.000Z",
        },
    }


def test_the_other_events() -> None:
    """Each is an object of event and data, as the contract has it."""
    assert json.loads(wire.personal(1500, 1600, 100, 5, "1-2", 1_768_041_000_000)) == {
        "event": "score:personal",
        "data": {
            "previousScore": 1500,
            "newScore": 1600,
            "pointsAwarded": 100,
            "rank": 5,
            "position": "1-2",
            "timestamp": "2026-01-10T10:30:00.000Z",
        },
    }
    assert json.loads(wire.authenticated(USER, 10, None))["data"] == {"userId": str(USER), "score": 10, "rank": None}
    assert json.loads(wire.stale(1_768_041_000_000)) == {
        "event": "leaderboard:stale",
        "data": {"since": "2026-01-10T10:30:00.000Z"},
    }
    assert json.loads(wire.error(wire.LiveErrorCode.UNKNOWN_CHANNEL, "no")) == {
        "event": "error",
        "data": {"code": "UNKNOWN_CHANNEL", "message": "no"},
    }
    assert json.loads(wire.subscribed("leaderboard")) == {"event": "subscribed", "data": {"channel": "leaderboard"}}
