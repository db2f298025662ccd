"""What is encoded for a board's viewers, and when there is nothing to send."""

from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain.boards import Snapshot
from scoreboard.domain.framing import websocket
from scoreboard.live.frame_set import FrameFormat, FrameSet, next_frame_set
from tests.live.boards import snapshot
from tests.live.messages import kinds, names, read_frames

FULL, DELTA = FrameFormat(websocket, delta=False), FrameFormat(websocket, delta=True)


def after(before: FrameSet | None, shown: Snapshot) -> FrameSet:
    frame_set = next_frame_set(before, shown)
    assert frame_set is not None
    return frame_set


def changed(frame: bytes) -> list[object]:
    return list(read_frames(frame)[0]["data"]["changedPositions"])


def test_the_first_frames_are_the_whole_board() -> None:
    """There is no previous board: no position has changed, and both formats have the same bytes."""
    frame_set = after(None, snapshot("abc", 1))
    assert (
        frame_set.serial,
        names(read_frames(frame_set.catch_up(FULL, 0))[0]),
        changed(frame_set.catch_up(FULL, 0)),
    ) == (1, "abc", [])
    assert frame_set.update(FULL) == frame_set.catch_up(FULL, 0) == frame_set.update(DELTA)


def test_an_update_names_changed_positions_and_a_catch_up_does_not() -> None:
    """A viewer with the previous frames gets the changed positions; one with older frames gets the board alone."""
    frame_set = after(after(None, snapshot("abc", 1)), snapshot("bad", 2))
    assert changed(frame_set.update(FULL)) == [
        {"userId": "b", "previousRank": 2, "newRank": 1, "score": 99},
        {"userId": "a", "previousRank": 1, "newRank": 2, "score": 98},
        {"userId": "d", "previousRank": None, "newRank": 3, "score": 97},
        {"userId": "c", "previousRank": 3, "newRank": None, "score": 97},
    ]
    assert (changed(frame_set.catch_up(FULL, 0)), names(read_frames(frame_set.catch_up(FULL, 0))[0])) == ([], "bad")
    assert frame_set.catch_up(FULL, 0) is frame_set.catch_up(DELTA, 0)  # encoded once


def test_nothing_new_is_nothing() -> None:
    """The same position with the same rows, whatever lies below, and a read that was overtaken, make no frame."""
    shown = after(None, snapshot("abcdefghij", 5))
    assert next_frame_set(shown, snapshot("abcdefghijk", 5)) is None
    assert next_frame_set(shown, snapshot("xyz", 4)) is None
    assert next_frame_set(shown, snapshot("xyz", 9, epoch=0)) is None


def test_another_position_is_sent_though_the_rows_are_the_same() -> None:
    """A rebuilt board has a new position, which viewers need when they reconnect to another node."""
    assert (
        read_frames(after(after(None, snapshot("ab", 5)), snapshot("ab", 1, epoch=2)).update(FULL))[0]["data"][
            "position"
        ]
        == "2-1"
    )


def test_a_delta_that_changes_nothing_is_never_sent() -> None:
    """Another position of the same rows, for those who had the rows and for those who come with an older position: the
    whole board."""
    first = after(None, snapshot("ab", 5))
    again = after(after(first, snapshot("ba", 6)), snapshot("ab", 7))
    rebuilt = after(again, snapshot("ab", 1, epoch=2))
    for frame in (
        again.catch_up(DELTA, first.position),
        rebuilt.update(DELTA),
        rebuilt.catch_up(DELTA, again.position),
    ):
        assert kinds(read_frames(frame)) == ["leaderboard:update"]
        assert names(read_frames(frame)[0]) == "ab"
    assert rebuilt.catch_up(DELTA, rebuilt.position) == b""


def test_a_stale_board_says_so_after_each_of_its_updates() -> None:
    """A stale board may change under its last position. The stale event follows every update; an update alone says
    that the board is live again."""
    live = after(None, snapshot("ab", 5))
    stale = after(live, snapshot("ab", 5, stale_since_ms=1_000))
    assert kinds(read_frames(stale.update(FULL))) == ["leaderboard:update", "leaderboard:stale"]
    assert read_frames(stale.update(FULL))[1]["data"] == {"since": "1970-01-01T00:00:01.000Z"}
    assert next_frame_set(stale, snapshot("ab", 5, stale_since_ms=1_000)) is None
    moved = after(stale, snapshot("ba", 5, stale_since_ms=1_000))
    assert kinds(read_frames(moved.catch_up(FULL, 0))) == ["leaderboard:update", "leaderboard:stale"]
    assert kinds(read_frames(after(moved, snapshot("ba", 6)).update(FULL))) == ["leaderboard:update"]


boards = st.builds(
    snapshot,
    st.text("abcdefghijkl", max_size=12).map(lambda text: "".join(dict.fromkeys(text))),
    st.integers(1, 5),
    epoch=st.integers(1, 2),
    stale_since_ms=st.sampled_from([0, 0, 7]),
)


@given(st.lists(boards, max_size=12), st.data())
def test_a_viewer_that_is_sent_the_newest_has_the_newest(reads: list[Snapshot], data: st.DataObject) -> None:
    """However often a viewer misses frames, the frames that it is sent lead to the rows and the position shown;
    positions never go back."""
    frame_set, last_sent, fresh = None, 0, list[tuple[int, int]]()
    for read in reads:
        news = next_frame_set(frame_set, read)
        if news is None:
            continue
        frame_set = news
        if read.stale:
            fresh.clear()  # the board of a store that has lost its data is published, whatever position it has
        else:
            fresh.append((read.epoch, read.shown_version))
        assert fresh == sorted(fresh)
        if data.draw(st.booleans()):
            event = read_frames(news.update(FULL) if last_sent == news.serial - 1 else news.catch_up(FULL, 0))[0]
            assert names(event) == "".join(entry.userId for entry in read.shown)
            assert event["data"]["position"] == news.position
            assert read.stale or news.position == read.position
            last_sent = news.serial
