"""Medians, ratios, verdicts and the table: `tests/bench/scale_report.py`."""

import pytest
from msgspec.structs import replace

from tests.bench import scale_report
from tests.bench.scale_report import Round

FEW = Round(
    users=10_000,
    actions=3_000,
    p99_ms=60,
    server_us=160,
    postgres_us=110,
    valkey_us=60,
    script_us=45,
    wal_bytes=1_300,
    full_pages=0,
    checkpoints=1,
    batch=40,
    not_ok=0,
    others=0,
)
MANY = replace(FEW, users=1_000_000, actions=2_400, postgres_us=190, wal_bytes=48_000, full_pages=5.5)


def test_a_size_is_compared_with_the_smallest_in_the_same_round() -> None:
    """A round in which the machine was slow for both sizes does not change the ratio."""
    slow = [replace(one, actions=one.actions / 10) for one in (FEW, MANY)]
    fast = [replace(one, actions=one.actions * 2) for one in (FEW, MANY)]
    assert scale_report.ratios([FEW, MANY, *slow, *fast]) == {10_000: 1.0, 1_000_000: 0.8}


def test_the_order_within_a_round_does_not_matter() -> None:
    """Sizes take turns in being first; their rounds are still paired."""
    worse = replace(MANY, actions=1_200)
    assert scale_report.ratios([FEW, MANY, worse, replace(FEW, actions=2_400), MANY, FEW])[1_000_000] == 0.8


def test_a_size_without_all_rounds_is_not_compared() -> None:
    """Half a round has no ratio."""
    with pytest.raises(ValueError, match="zip"):
        scale_report.ratios([FEW, MANY, FEW])


def test_each_figure_is_the_median_of_its_own() -> None:
    """One line a size, the smallest first; one round that is out of order changes nothing."""
    rounds = [replace(MANY, actions=actions, p99_ms=p99) for actions, p99 in ((10, 900), (30, 1), (20, 2))]
    assert scale_report.medians([*rounds, FEW]) == [FEW, replace(MANY, actions=20, p99_ms=2)]


def test_the_larger_size_is_judged() -> None:
    """At least three quarters of the smallest size's actions are expected of each other size, of the smallest
    nothing."""
    (found,) = scale_report.expectations([FEW, MANY])
    assert (found.value, found.met) == (0.8, True)
    (found,) = scale_report.expectations([FEW, replace(MANY, actions=2_249)])
    assert not found.met
    assert scale_report.expectations([FEW]) == []


def test_the_table_has_a_line_a_size() -> None:
    """Actions a second, their ratio, and what each action cost, in all and by process, and wrote."""
    lines = scale_report.table([MANY, FEW]).splitlines()
    assert [line.split(" | ")[:3] for line in lines[2:]] == [
        ["| 10,000", "3,000", "1.00"],
        ["| 1,000,000", "2,400", "0.80"],
    ]
    assert " | 410 | 160 | 190 | 60 | 45 | 48.0 | 5.5 | " in lines[3]
