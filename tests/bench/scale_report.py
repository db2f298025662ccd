"""Turns the rounds of `scripts/bench scale` into a table and the ratio of the sizes. Pure: `scale` measures."""

from collections.abc import Sequence
from statistics import median

import msgspec

from tests.bench.report import Expectation, rows

SLOWDOWN = 0.75  # at least so many of the smallest size's actions a second are expected of any other size


class Round(msgspec.Struct, frozen=True):
    """One size in one round. Every `…_us` is CPU or time in microseconds an accepted action."""

    users: int
    actions: float  # accepted, a second
    p99_ms: float
    server_us: float
    postgres_us: float
    valkey_us: float
    script_us: float  # of Valkey's: in the server's scripts
    wal_bytes: float  # an action
    full_pages: float  # images of whole pages in the WAL, an action
    checkpoints: float  # in the round
    batch: float  # actions a commit
    not_ok: float  # answers other than 200
    others: float  # cores that processes outside the benchmark kept busy meanwhile

    @property
    def all_us(self) -> float:
        """CPU of server and stores an action: what a busy machine changes least."""
        return self.server_us + self.postgres_us + self.valkey_us


def medians(rounds: Sequence[Round]) -> list[Round]:
    """One line a size, smallest first: each figure is the median of its own over the rounds."""
    sizes: dict[int, list[Round]] = {}
    for one in rounds:
        sizes.setdefault(one.users, []).append(one)
    fields = Round.__struct_fields__[1:]
    return [
        Round(users, **{name: float(median(getattr(one, name) for one in sizes[users])) for name in fields})
        for users in sorted(sizes)
    ]


def ratios(rounds: Sequence[Round]) -> dict[int, float]:
    """For each size: its actions a second by those of the smallest size in the same round, and of the rounds the
    median.

    Rounds are compared with themselves, since what else the machine does changes from one to the next. Every size needs
    every round.
    """
    sizes: dict[int, list[float]] = {}
    for one in rounds:
        sizes.setdefault(one.users, []).append(one.actions)
    smallest = sizes[min(sizes)]
    return {
        users: median(own / base for own, base in zip(sizes[users], smallest, strict=True)) for users in sorted(sizes)
    }


def expectations(rounds: Sequence[Round]) -> list[Expectation]:
    found = list(ratios(rounds).items())
    smallest = found[0][0]
    return [
        Expectation(f"actions/s with {users:,} users over {smallest:,}", SLOWDOWN, ratio) for users, ratio in found[1:]
    ]


def table(rounds: Sequence[Round]) -> str:
    found = ratios(rounds)
    header = (
        "users",
        "actions/s",
        "of the smallest",
        "p99 ms",
        "CPU µs an action",
        "server",
        "PostgreSQL",
        "Valkey",
        "in scripts",
        "WAL kB an action",
        "page images",
        "checkpoints",
        "batch",
        "not 200",
        "others' cores",
    )
    body = [
        (
            f"{one.users:,}",
            f"{one.actions:,.0f}",
            f"{found[one.users]:.2f}",
            f"{one.p99_ms:.1f}",
            f"{one.all_us:.0f}",
            f"{one.server_us:.0f}",
            f"{one.postgres_us:.0f}",
            f"{one.valkey_us:.0f}",
            f"{one.script_us:.0f}",
            f"{one.wal_bytes / 1e3:.1f}",
            f"{one.full_pages:.1f}",
            f"{one.checkpoints:g}",
            f"{one.batch:.1f}",
            f"{one.not_ok:g}",
            f"{one.others:.2f}",
        )
        for one in medians(rounds)
    ]
    return rows(header, body)
