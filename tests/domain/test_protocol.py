"""The events of a live connection, as the contract has them."""

import json
from uuid import UUID

from scoreboard.domain import protocol
from scoreboard.domain.boards import Entry, Snapshot
from scoreboard.domain.deltas import ChangedPosition

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


def test_the_other_events() -> None:
    """Each is an object of event and data, as the contract has it."""
    assert json.loads(protocol.personal(1500, 1600, 100, 5, "1-2", 1_768_041_000_000)) == {
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
    assert json.loads(protocol.authenticated(USER, 10, None))["data"] == {
        "userId": str(USER),
        "score": 10,
        "rank": None,
    }
    assert json.loads(protocol.stale(1_768_041_000_000)) == {
        "event": "leaderboard:stale",
        "data": {"since": "2026-01-10T10:30:00.000Z"},
    }
    assert json.loads(protocol.error(protocol.LiveErrorCode.UNKNOWN_CHANNEL, "no")) == {
        "event": "error",
        "data": {"code": "UNKNOWN_CHANNEL", "message": "no"},
    }
    assert json.loads(protocol.subscribed("leaderboard")) == {"event": "subscribed", "data": {"channel": "leaderboard"}}
