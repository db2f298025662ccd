"""The report of `scripts/bench bulk`: the ratio, the median round, the bound."""

import msgspec

from tests.bench.bulk_report import TARGET, Figure, expectation, figure, middle, summary

ROUND = Figure(500, 6, 25_000, 22_000, 40, 90, 20, 30, 5, 0, 0.1)


def test_the_middle_round_is_that_of_the_ratio() -> None:
    """A fast round of a fast machine is no better than a slow one with the same ratio."""
    slow = msgspec.structs.replace(ROUND, alone=2_000, actions=1_900)
    fast = msgspec.structs.replace(ROUND, alone=60_000, actions=50_000)
    assert middle([slow, fast, ROUND]) is ROUND


def test_the_bound_is_the_lesser() -> None:
    """The target, or what PostgreSQL alone takes on this machine."""
    assert expectation([ROUND]).bound == TARGET
    assert expectation([ROUND]).met
    slow = msgspec.structs.replace(ROUND, alone=2_000, actions=1_900)
    assert (expectation([slow]).bound, expectation([slow]).met) == (2_000, False)


def test_a_figure_has_the_quantiles_of_its_requests() -> None:
    """In milliseconds; one request has one of each."""
    found = figure(
        size=500, connections=1, alone=1, actions=1, latencies=[0.001 * n for n in range(101)], cpu_us=(1, 2, 3),
        not_ok=0, others=0,
    )  # fmt: skip
    assert (round(found.p50_ms), round(found.p99_ms)) == (50, 99)
    assert (found.server_us, found.postgres_us, found.valkey_us) == (1, 2, 3)


def test_a_busy_machine_is_named() -> None:
    """The reader learns which figures to trust."""
    assert "Trust the ratio" not in summary([ROUND], 5)
    assert "Trust the ratio alone" in summary([msgspec.structs.replace(ROUND, others=1.0)], 5)
    assert "| 0.88 |" in summary([ROUND], 5)
