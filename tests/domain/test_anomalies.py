"""The anomaly rules: what each finds, at its bound and beside it, and that dividing the log changes nothing."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain.anomalies import (
    HISTORY_ACTIONS,
    HISTORY_MS,
    AnomalyLimits,
    AnomalyRule,
    Finding,
    LoggedAction,
    find,
)

OFF = AnomalyLimits(0, 0, 0, 0, 0)
START = 1_700_000_000_000


def actions(*given: tuple[float, int, float]) -> list[LoggedAction]:
    """From (seconds, points, claimed seconds)."""
    return [
        LoggedAction(number + 1, START + round(seconds * 1000), points, claimed)
        for number, (seconds, points, claimed) in enumerate(given)
    ]


def every(seconds: float, number: int, *, points: int = 1, claimed: float = 0.0) -> list[LoggedAction]:
    return actions(*[(place * seconds, points, claimed) for place in range(number)])


def rules(found: Sequence[Finding]) -> set[AnomalyRule]:
    return {finding.rule for finding in found}


def test_ordinary_play_is_not_found() -> None:
    """An action every minute or so, with a time that fits."""
    played = actions(*[(place * 67 + (place * 37) % 29, 50, 40.0) for place in range(50)])
    assert find(played, len(played), AnomalyLimits()) == []


def test_a_jump_of_points() -> None:
    """More than 1000 points within a minute, by one action or by several; 1000 are none, nor are those of before."""
    limits = OFF._replace(points_jump=1000)
    assert find(actions((0, 1000, 0)), 1, limits) == []
    (one,) = find(actions((0, 1001, 0)), 1, limits)
    assert one == (AnomalyRule.POINTS_JUMP, 1, {"points": 1001, "actions": 1, "seconds": 60})
    (several,) = find(actions((0, 500, 0), (30, 500, 0), (60, 1, 0)), 3, limits)
    assert (several.seq, several.evidence["points"]) == (3, 1001)
    assert find(actions((0, 500, 0), (30, 500, 0), (60.001, 1, 0)), 3, limits) == []


def test_more_than_a_hundred_actions_an_hour() -> None:
    """The 101st within an hour is found; a hundred are not, nor 101 in more than an hour."""
    limits = OFF._replace(action_rate=100)
    assert find(every(10, 100), 100, limits) == []
    (found,) = find(every(10, 101), 101, limits)
    assert found == (AnomalyRule.ACTION_RATE, 101, {"actions": 101, "seconds": 3600})
    assert find(every(37, 150), 150, limits) == []


def test_intervals_of_a_program() -> None:
    """Twenty actions in a row at equal distances, even with some jitter; not nineteen, not a person's, not a server's
    that submits in bulk."""
    limits = OFF._replace(regular_intervals=20, regular_percent=5)
    (found,) = find(every(7, 20), 20, limits)
    assert found.evidence == {"actions": 20, "meanMs": 7000, "variationPercent": 0.0}
    assert find(every(7, 19), 19, limits) == []
    jitter = actions(*[(place * 7 + (place % 3) * 0.1, 1, 0) for place in range(20)])
    assert rules(find(jitter, 20, limits)) == {AnomalyRule.REGULAR_INTERVALS}
    person = actions(*[(place * 7 + (place * 13 % 5), 1, 0) for place in range(20)])
    assert find(person, 20, limits) == []
    assert find(every(0, 20), 20, limits) == []
    assert find(every(0.1, 20), 20, limits) == []


def test_more_time_claimed_than_has_passed() -> None:
    """Each claims a minute, every ten seconds: 50 s too many each. Claims that fit the pauses are none, whatever the
    first claims."""
    limits = OFF._replace(impossible_time=600)
    (found,) = find(every(10, 20, claimed=60.0), 20, limits)
    assert (found.rule, found.seq) == (AnomalyRule.IMPOSSIBLE_TIME, 14)
    assert found.evidence == {"excessSeconds": 650, "actions": 14}
    assert find(every(60, 50, claimed=60.0), 50, limits) == []
    assert find(actions((0, 1, 86_400), (5, 1, 4)), 2, limits) == []


def test_one_claim_longer_than_the_pause_before_it() -> None:
    """A day of work, ten seconds after the last action; an absurd number is bounded."""
    limits = OFF._replace(impossible_time=600)
    assert find(actions((0, 1, 0), (10, 1, 86_400)), 1, limits)[0].evidence["excessSeconds"] == 86_390
    assert find(actions((0, 1, 0), (10, 1, 1e300)), 1, limits)[0].evidence["excessSeconds"] == 999_990


def test_clocks_that_go_back_are_borne() -> None:
    """Two batches may commit in another order than they began."""
    played = actions((10, 1, 5), (9, 1, 5), (8.5, 1, 5), (30, 1, 5))
    assert find(played, 4, AnomalyLimits(impossible_time=20)) == []


def test_each_rule_can_be_switched_off() -> None:
    """0 in the settings: nothing is found, whatever was done."""
    assert find(every(1, 400, points=100_000, claimed=500.0), 400, OFF) == []


def test_only_new_actions_are_looked_at() -> None:
    """What was found before is not found again."""
    limits = OFF._replace(points_jump=1000)
    played = actions((0, 5000, 0), (70, 1, 0))
    assert rules(find(played, 2, limits)) == {AnomalyRule.POINTS_JUMP}
    assert find(played, 1, limits) == []


ACTIONS = st.lists(st.tuples(st.integers(0, 400_000), st.integers(0, 700), st.floats(0, 300)), min_size=1, max_size=60)


@given(ACTIONS, st.integers(1, 59))
def test_dividing_the_log_changes_nothing(steps: list[tuple[int, int, float]], cut: int) -> None:
    """The first finding of each rule is the same, whether actions come in one run or in two."""
    limits = AnomalyLimits(points_jump=900, action_rate=20, regular_intervals=3, regular_percent=50)
    at, played = START, list[LoggedAction]()
    for seq, (pause, points, claimed) in enumerate(steps):
        at += pause
        played.append(LoggedAction(seq, at, points, claimed))
    whole = {finding.rule: finding for finding in find(played, len(played), limits)}
    cut = min(cut, len(played))
    first = [each for each in played[:cut] if each.at_ms >= played[0].at_ms - HISTORY_MS]
    divided = (
        {finding.rule: finding for finding in find(played, len(played) - cut, limits)} if cut < len(played) else {}
    )
    divided |= {finding.rule: finding for finding in find(first, len(first), limits)}
    assert divided == whole


def test_the_highest_limit_can_be_reached() -> None:
    """The actions of a user that are looked at are more than any limit of actions an hour."""
    limits = OFF._replace(action_rate=HISTORY_ACTIONS)
    assert rules(find(every(1, HISTORY_ACTIONS + 1), 1, limits)) == {AnomalyRule.ACTION_RATE}


@pytest.mark.parametrize("number", [1, 2])
def test_few_actions_are_borne(number: int) -> None:
    """No rule divides by the number of intervals of a single action."""
    assert find(every(10, number), number, AnomalyLimits(regular_intervals=2, regular_percent=5)) == [] or number == 2
