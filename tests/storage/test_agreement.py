"""A board's agreement with PostgreSQL: it is stale at once after a failure, and until a comparison proves agreement."""

import pytest
from structlog.testing import capture_logs

from scoreboard.domain.boards import LEADERBOARD
from scoreboard.storage import agreement as module
from scoreboard.storage.agreement import MAX_WRITERS, Agreement, StaleReason
from tests.storage.seeds import agreed


def test_a_node_begins_stale() -> None:
    """Until the stores were compared once, nothing is known."""
    assert Agreement(LEADERBOARD).stale_reasons() == {StaleReason.UNCHECKED}


def test_a_call_that_failed_is_in_doubt_until_an_answer_covers_it() -> None:
    """An answer for an earlier batch proves nothing, nor does a comparison that finds nothing else."""
    agreement = agreed()
    agreement.acknowledge(7, 3)
    agreement.mark_unprojected(7, 3)
    assert agreement.stale_reasons() == {StaleReason.UNPROJECTED}
    agreement.mark_projected(7, 2)
    agreement.set_stale_reasons(())
    assert agreement.is_stale
    agreement.mark_projected(7, 4)
    assert not agreement.is_stale


def test_an_answer_that_lacks_an_acknowledged_batch_is_not_believed() -> None:
    """A batch that Redis has lost after it had confirmed it makes the board stale."""
    agreement = agreed()
    agreement.acknowledge(7, 3)
    agreement.acknowledge(8, 1)
    acknowledged = agreement.acknowledged()
    assert agreement.confirm(acknowledged, [3, 1])
    assert not agreement.confirm(acknowledged, [2, 1])
    assert agreement.is_stale
    assert agreement.confirm(acknowledged, [3, 1])
    assert not agreement.is_stale


def test_what_was_acknowledged_during_a_read_is_not_expected_of_it() -> None:
    """The read may be older than that call."""
    agreement = agreed()
    agreement.acknowledge(7, 3)
    acknowledged = agreement.acknowledged()
    agreement.acknowledge(7, 4)
    assert agreement.confirm(acknowledged, [3])
    assert not agreement.is_stale


def test_without_comparisons_doubt_comes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL can't be reached: others may have committed meanwhile."""
    now = 100.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    agreement = Agreement(LEADERBOARD)
    agreement.set_stale_reasons(())
    assert (agreement.is_stale, agreement.stale_reasons()) == (False, frozenset())
    now += module.UNCHECKED_SECONDS + 0.1
    assert agreement.is_stale
    assert agreement.stale_reasons() == {StaleReason.UNCHECKED}
    agreement.set_stale_reasons(())
    assert not agreement.is_stale


def test_a_writer_whose_batches_are_lost_is_waited_for_no_longer() -> None:
    """PostgreSQL does not know them any more, so no board will ever confirm them; living writers and open batches
    stay."""
    agreement = agreed()
    for writer in (1, 2, 3, 4):
        agreement.acknowledge(writer, 5)
    agreement.mark_unprojected(1, 5)
    agreement.mark_unprojected(2, 5)
    agreement.drop_writers(lost=[1], alive=[3])
    assert agreement.acknowledged() == {2: 5, 3: 5}
    agreement.mark_projected(2, 5)
    assert not agreement.is_stale


def test_the_writers_that_are_remembered_are_bounded() -> None:
    """Above the bound the oldest writer is dropped, and the board is stale until the next comparison."""
    agreement = agreed()
    for writer in range(MAX_WRITERS + 1):
        agreement.acknowledge(writer, 1)
    assert len(agreement.acknowledged()) == MAX_WRITERS
    assert agreement.stale_reasons() == {StaleReason.BEHIND}


def test_a_change_is_logged_once() -> None:
    """One log line when the board becomes stale, one when it agrees again, and a comparison is requested."""
    asked = []
    agreement = Agreement(LEADERBOARD, lambda: asked.append(1))
    agreement.set_stale_reasons(())
    with capture_logs() as lines:
        for _ in range(3):
            agreement.mark_stale(StaleReason.MISSING)
        agreement.set_stale_reasons({StaleReason.MISSING})
        for _ in range(2):
            agreement.begin_comparison()
            agreement.set_stale_reasons(())
    assert [line["event"] for line in lines] == ["board_became_stale", "board_confirmed"]
    assert lines[0]["reasons"] == ["missing"]
    assert len(asked) == 3


def test_a_comparison_does_not_end_what_was_found_since_it_began() -> None:
    """A running comparison does not end a reason that was found since it began: it may have read Redis before."""
    agreement = agreed()
    agreement.begin_comparison()
    agreement.mark_stale(StaleReason.MISSING)
    agreement.set_stale_reasons(())
    assert agreement.stale_reasons() == {StaleReason.MISSING}
    agreement.begin_comparison()
    agreement.set_stale_reasons(())
    assert not agreement.is_stale


def test_an_answer_that_is_late_leaves_no_doubt_of_a_writer_that_is_gone() -> None:
    """Its batches were found to be lost while the read was under way: nothing would ever confirm them."""
    agreement = agreed()
    agreement.acknowledge(7, 3)
    acknowledged = agreement.acknowledged()
    agreement.drop_writers(lost=[7], alive=[])
    assert not agreement.confirm(acknowledged, [1])
    assert not agreement.is_stale


def test_what_was_read_in_doubt_is_too_old_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """`agreed_at` is the moment when the board became current; while it is current, that does not change."""
    now = 100.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    agreement = agreed()
    assert agreement.agreed_at == 100.0
    now = 101.0
    agreement.begin_comparison()
    agreement.set_stale_reasons(())
    assert agreement.agreed_at == 100.0
    agreement.mark_stale(StaleReason.OLD)
    now = 102.0
    agreement.begin_comparison()
    agreement.set_stale_reasons(())
    assert agreement.agreed_at == 102.0
