"""Turns the rounds of `scripts/bench bulk` into a table and a verdict. Pure: `bulk` measures."""

from collections.abc import Sequence
from statistics import median, quantiles

import msgspec

from tests.bench.report import Expectation, rows, verdicts

TARGET = 20_000.0  # actions a second, or what PostgreSQL alone takes
BUSY_CORES = 0.2


class Figure(msgspec.Struct, frozen=True):
    """One round. Every `…_us` is CPU in microseconds an accepted action."""

    size: int  # actions a request
    connections: int
    alone: float  # actions a second of PostgreSQL alone, with the same batches
    actions: float  # accepted, a second
    p50_ms: float  # of a request
    p99_ms: float
    server_us: float
    postgres_us: float
    valkey_us: float
    not_ok: int  # outcomes other than 200
    others: float  # cores that processes outside the benchmark kept busy meanwhile

    @property
    def ratio(self) -> float:
        return self.actions / self.alone


def figure(
    *,
    size: int,
    connections: int,
    alone: float,
    actions: float,
    latencies: Sequence[float],
    cpu_us: tuple[float, float, float],
    not_ok: int,
    others: float,
) -> Figure:
    """`cpu_us`: of the server, of PostgreSQL and of Valkey."""
    cuts = quantiles(latencies, n=100, method="inclusive") if len(latencies) > 1 else [*latencies] * 99
    server, postgres, valkey = cpu_us
    p50_ms, p99_ms = cuts[49] * 1e3, cuts[98] * 1e3
    return Figure(size, connections, alone, actions, p50_ms, p99_ms, server, postgres, valkey, not_ok, others)


def middle(figures: Sequence[Figure]) -> Figure:
    """The round with the median ratio."""
    return sorted(figures, key=lambda one: one.ratio)[len(figures) // 2]


def expectation(figures: Sequence[Figure]) -> Expectation:
    """TARGET actions a second, or what PostgreSQL alone takes, whichever is less."""
    alone = median(one.alone for one in figures)
    return Expectation(
        "actions/s in bulk", min(TARGET, alone), median(one.actions for one in figures), unit="actions/s"
    )


def summary(figures: Sequence[Figure], seconds: float) -> str:
    """The table and the verdict."""
    header = (
        *("actions a request", "conn.", "actions/s", "PostgreSQL alone", "ratio", "p50 ms", "p99 ms"),
        *("CPU µs an action: server", "PostgreSQL", "Valkey", "not 200", "others' cores"),
    )
    body = [
        (
            *(str(one.size), str(one.connections), f"{one.actions:,.0f}", f"{one.alone:,.0f}", f"{one.ratio:.2f}"),
            *(f"{one.p50_ms:.0f}", f"{one.p99_ms:.0f}", f"{one.server_us:.0f}", f"{one.postgres_us:.0f}"),
            *(f"{one.valkey_us:.0f}", str(one.not_ok), f"{one.others:.2f}"),
        )
        for one in [middle(figures)]
    ]
    parts = [
        f"The middle one of {len(figures)} rounds by its ratio; {seconds:g} s each. PostgreSQL alone: the recording "
        "statement on one connection with the same batches, and nothing else.",
        rows(header, body),
        verdicts([expectation(figures)]),
    ]
    if (busiest := max(one.others for one in figures)) > BUSY_CORES:
        parts.append(f"The machine was busy: other processes took up to {busiest:.1f} cores. Trust the ratio alone.")
    return "\n\n".join(parts) + "\n"
