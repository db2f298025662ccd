"""The table, the verdicts and the refusal to print: `tests/bench/report.py`."""

from msgspec.structs import replace

from tests.bench import report
from tests.bench.report import Figure, Kept

OURS = Figure(
    name="ours",
    title="this server",
    connections=128,
    actions=6_000,
    p50_ms=20,
    p99_ms=40,
    reads=60_000,
    cpu_us=100,
    read_cpu_us=12,
    batch=40,
    not_ok=0,
    others=0,
)
FASTAPI = replace(OURS, name="fastapi", title="FastAPI", actions=1_000, p99_ms=200, reads=3_000, cpu_us=900, batch=None)


def test_every_expectation_of_a_run_is_judged() -> None:
    """With our server and FastAPI at 128 connections: actions, p99, reads and CPU each get a verdict."""
    found = report.expectations([OURS, FASTAPI])
    assert [(e.value, e.met) for e in found] == [(6.0, True), (0.2, True), (20.0, True), (100.0, True)]


def test_a_bound_that_is_missed_is_not_met() -> None:
    """Slower than expected is told as such, in each figure by itself."""
    found = report.expectations([replace(OURS, actions=3_999, p99_ms=101, reads=29_999, cpu_us=151), FASTAPI])
    assert [e.met for e in found] == [False, False, False, False]
    assert report.verdicts(found).count("**not met**") == 4


def test_nothing_is_judged_without_our_own_figures() -> None:
    """A run of peers alone has a table and no verdicts."""
    assert report.expectations([FASTAPI]) == []
    assert "| – |" in report.table([FASTAPI])


def test_the_table_gives_the_ratio_to_our_server() -> None:
    """`ours is`: our figure divided by the row's, at the same number of connections."""
    row = report.table([OURS, FASTAPI]).splitlines()[3]
    assert row.split(" | ")[:4] == ["| FastAPI", "128", "1,000", "6.0 ×"]
    assert "20.0 ×" in row


def test_the_middle_round_counts() -> None:
    """Of three rounds the one in the middle stands for a server, whole: its p99 is not mixed with another round's."""
    rounds = [replace(OURS, actions=actions, p99_ms=p99) for actions, p99 in ((10, 3), (30, 1), (20, 2))]
    assert report.middle([*rounds, FASTAPI]) == [rounds[2], FASTAPI]


def test_a_lost_or_invented_action_forbids_every_figure() -> None:
    """The database must hold each accepted action once, and its points must be in the totals and on the board."""
    whole = Kept(actions=10, points=500, totals=500, board=500)
    assert report.disagreement(10, whole) is None
    for wrong in (
        replace(whole, actions=9),
        replace(whole, actions=11),
        replace(whole, totals=450),
        replace(whole, board=550),
    ):
        assert "10 actions were accepted" in (report.disagreement(10, wrong) or "")
