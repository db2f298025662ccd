"""The fan-out's table and verdicts: `tests/bench/fanout_report.py`."""

from msgspec.structs import replace

from tests.bench import fanout_report
from tests.bench.fanout_report import Figure

OURS = Figure(
    name="ours",
    title="this server",
    clients=8_000,
    cpu_us=6.5,
    idle_us=0.5,
    memory_kib=17,
    lag_p50_ms=90,
    lag_p99_ms=180,
    lag_max_ms=200,
    read_p99_ms=40,
    ticks=10,
    messages=80_000,
    size=1_200,
    opening=4,
    gone=0,
    refused=0,
    viewers_cores=0.4,
    others=0,
)
BUN = replace(OURS, name="bun", title="Bun", cpu_us=6, idle_us=0, read_p99_ms=None)
STREAM = replace(OURS, name="ours-sse", title="events", memory_kib=7)


def test_every_expectation_of_a_run_is_judged() -> None:
    """CPU over the peer's; lag, reads and memory at the largest number of viewers."""
    smaller = replace(OURS, clients=500, lag_p99_ms=10_000)
    found = fanout_report.expectations([smaller, OURS, BUN, STREAM])
    assert [(round(e.value, 2), e.met) for e in found] == [(1.08, True), (180, True), (40, True), (17, True), (7, True)]


def test_a_bound_that_is_missed_is_not_met() -> None:
    """Slower, later or larger than expected is told as such, in each figure by itself."""
    ours = replace(OURS, cpu_us=7, lag_p99_ms=301, read_p99_ms=101, memory_kib=20.1)
    found = fanout_report.expectations([ours, BUN, replace(STREAM, memory_kib=8.1)])
    assert [e.met for e in found] == [False] * 5


def test_peers_alone_are_not_judged() -> None:
    """A run without our server has a table and no verdicts."""
    assert fanout_report.expectations([BUN]) == []
    assert fanout_report.table([BUN]).splitlines()[2].startswith("| Bun | 8,000 | 6.00 | – |")


def test_the_middle_round_counts() -> None:
    """Of three rounds the one in the middle by CPU, of two the better one, whole."""
    rounds = [replace(OURS, cpu_us=cpu, lag_p99_ms=lag) for cpu, lag in ((9, 1), (7, 3), (8, 2))]
    assert fanout_report.middle([*rounds, BUN]) == [rounds[2], BUN]
    assert fanout_report.middle(rounds[:2]) == [rounds[1]]
