"""The events of a live connection, as the contract has them."""

import json
from uuid import UUID

from scoreboard.domain import protocol
from scoreboard.domain.boards import LEADERBOARD, Entry, Snapshot
from scoreboard.domain.deltas import ChangedPosition, compare
from scoreboard.domain.errors import LimitLayer

USER = UUID(int=7)


def test_the_update_has_the_specification_s_shape() -> None:
    """leaderboard:update holds the first ten rows, the changed positions, the position and the time; a missing picture
    is left out."""
    rows = tuple(
        Entry(rank, f"u{rank}", f"Name {rank}", 1000 - rank, "https://example.org/a" if rank == 1 else None)
        for rank in range(1, 13)
    )
    snapshot = Snapshot("leaderboard", 3, 9, 8, 1_768_041_000_000, rows)
    event = json.loads(
        protocol.update(snapshot, (ChangedPosition("u2", 6, 2, 998), ChangedPosition("u99", 10, None, 5)))
    )
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


def test_a_delta_holds_whole_rows_and_who_left() -> None:
    """leaderboard:delta names both positions; a changed row is whole, with the rank that it had."""
    before, after = (Entry(1, "u1", "One", 9), Entry(2, "u2", "Two", 8)), (Entry(1, "u3", "Three", 10),)
    snapshot = Snapshot("leaderboard", 3, 9, 8, 1_768_041_000_000, after)
    assert json.loads(protocol.delta("3-7", compare(before, after), snapshot)) == {
        "event": "leaderboard:delta",
        "data": {
            "position": "3-8",
            "previousPosition": "3-7",
            "changed": [{"userId": "u3", "username": "Three", "score": 10, "rank": 1, "previousRank": None}],
            "removed": ["u1", "u2"],
            "timestamp": "2026-01-10T10:30:00.000Z",
        },
    }


def test_a_personal_event_has_the_specification_s_shape() -> None:
    """score:personal holds what an action gave its user."""
    assert json.loads(protocol.personal(LEADERBOARD.id, 1500, 1600, 100, 5, "1-2", 1_768_041_000_000)) == {
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


def test_authenticated_says_where_the_user_stands() -> None:
    """An unknown rank is null."""
    data = json.loads(protocol.authenticated(USER, 10, None))["data"]
    assert data == {"userId": str(USER), "score": 10, "rank": None}


def test_a_stale_event_says_since_when() -> None:
    """leaderboard:stale holds the time from which on the board can't be read."""
    assert json.loads(protocol.stale(LEADERBOARD.id, 1_768_041_000_000)) == {
        "event": "leaderboard:stale",
        "data": {"since": "2026-01-10T10:30:00.000Z"},
    }


def test_an_error_event_names_the_limit_that_refused() -> None:
    """`layer` is left out where no limit refused, or the node's own did."""
    assert json.loads(protocol.error(protocol.LiveErrorCode.UNKNOWN_CHANNEL, "no")) == {
        "event": "error",
        "data": {"code": "UNKNOWN_CHANNEL", "message": "no"},
    }
    refused = json.loads(protocol.error(protocol.LiveErrorCode.TOO_MANY_CONNECTIONS, "no", LimitLayer.IP))
    assert refused["data"]["layer"] == "ip"


def test_subscribed_promises_heartbeats_only_on_request() -> None:
    """A client that asked for heartbeats gets the longest silence."""
    assert json.loads(protocol.subscribed("leaderboard")) == {"event": "subscribed", "data": {"channel": "leaderboard"}}
    promised = json.loads(protocol.subscribed("leaderboard", heartbeat=True))["data"]
    assert promised == {"channel": "leaderboard", "heartbeatSeconds": protocol.HEARTBEAT_SECONDS}


def test_events_of_other_boards_name_their_channel() -> None:
    """`channel` is the last member of the data. Apart from it a board's events are those of the first board."""
    rows = (Entry(1, "u1", "One", 9),)
    first, other = (Snapshot(board, 3, 9, 8, 1_768_041_000_000, rows) for board in (LEADERBOARD.id, "daily"))
    comparison = compare((), rows)
    pairs = [
        (protocol.update(first, ()), protocol.update(other, ())),
        (protocol.delta("3-7", comparison, first), protocol.delta("3-7", comparison, other)),
        (protocol.stale(first.board, 7), protocol.stale(other.board, 7)),
        (protocol.personal(first.board, 1, 2, 1, 1, "3-8", 7), protocol.personal(other.board, 1, 2, 1, 1, "3-8", 7)),
    ]
    for ours, theirs in pairs:
        assert theirs == ours.removesuffix(b"}}") + b',"channel":"daily"}}'
