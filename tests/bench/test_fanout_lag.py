"""From commits and times of delivery to lag: `tests/bench/fanout_lag.py`."""

from collections import Counter

from tests.bench import fanout_lag
from tests.bench.fanout_lag import Commit, Lags
from tests.bench.fanout_wire import Shown

BOARDS = [
    Shown("1-1", {"a": 50, "b": 50}, None),
    Shown("1-2", {"a": 150, "b": 50}, None),
    Shown("1-3", {"a": 150, "b": 100}, None),
]
COMMITS = [
    Commit("a", 50, 1_000),
    Commit("b", 50, 1_001),
    Commit("a", 100, 2_000),
    Commit("a", 150, 2_060),
    Commit("b", 100, 2_130),
]


def test_the_oldest_change_in_a_board_counts() -> None:
    """Two actions in one tick: the lag begins at the first of them."""
    assert fanout_lag.lags(BOARDS, [(0, 1, 2_100, 3)], COMMITS).counts == Counter({100: 3})


def test_a_viewer_that_missed_a_board_waited_longer() -> None:
    """It is handed the newest, and its lag begins where the missed one's did."""
    assert fanout_lag.lags(BOARDS, [(1, 2, 2_200, 4), (0, 2, 2_300, 1)], COMMITS).counts == Counter({70: 4, 300: 1})


def test_what_was_there_before_is_not_news() -> None:
    """The first board seen carries actions of any age."""
    assert fanout_lag.oldest_changes(BOARDS, COMMITS) == [None, 2_000, 2_130]


def test_a_peers_message_carries_its_time() -> None:
    """Also the first that a viewer gets: nothing is sent before all are there."""
    assert fanout_lag.lags([Shown("1", {}, 500.0)], [(-1, 0, 512, 2)]).counts == Counter({12: 2})


def test_percentiles_are_of_deliveries() -> None:
    """The smallest lag that at least the share kept within."""
    lags = fanout_lag.merged([Lags(Counter({10: 98})), Lags(Counter({20: 1, 500: 1}))])
    assert [lags.percentile(share) for share in (0.5, 0.98, 0.99, 1)] == [10, 10, 20, 500]
    assert Lags(Counter()).percentile(0.99) == 0
