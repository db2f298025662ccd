"""Turns the phases of `scripts/bench front-line` into tables, and puts them into SECURITY.md. Pure: `frontline`
measures."""

from collections.abc import Sequence
from textwrap import fill

import msgspec

from tests.bench.report import rows

LIMIT_MS = 100.0  # an honest client's p99 beside an attack stays under this …
TIMES = 2.0  # … and under so many times its usual p99 …
SAME_MS = 20.0  # … which is not asked below this: two p99 of a few hundred requests differ by that on a shared machine
MEMORY_KIB = 32.0  # of a connection, whatever is sent on it
COLUMNS = 120  # of a document
BEGIN, END = "<!-- figures of scripts/bench front-line: written by --markdown -->", "<!-- end of the figures -->"


class Sample(msgspec.Struct, frozen=True):
    """One honest request: milliseconds from the moment when it was due, and whether it was answered as it should be."""

    kind: str
    ms: float
    served: bool


class Phase(msgspec.Struct, frozen=True):
    """What honest clients saw in one phase. Log-ins are apart: a password's hash alone takes longer than any other
    request."""

    requests: int
    failed: int
    p50_ms: float
    p99_ms: float
    log_ins: int
    log_ins_failed: int
    log_in_max_ms: float
    server_cores: float  # that the node kept busy


class Trial(msgspec.Struct, frozen=True):
    """One attack: the phase just before it, the phase beside it, and what the attacker got."""

    name: str
    title: str
    usual: Phase
    beside: Phase
    connections: int
    refused: int
    statuses: dict[str, int]

    @property
    def is_served(self) -> bool:
        """Whether every honest request was answered, log-ins too."""
        return self.beside.failed == self.beside.log_ins_failed == 0

    @property
    def holds(self) -> bool:
        p99, usual = self.beside.p99_ms, self.usual.p99_ms
        return self.is_served and p99 < LIMIT_MS and (p99 < SAME_MS or p99 < TIMES * usual)


class Shape(msgspec.Struct, frozen=True):
    """One shape of a hostile connection: memory of the node for each that was opened; `open`: how many were still there
    then."""

    name: str
    title: str
    kib: float
    opened: int
    open: int

    @property
    def holds(self) -> bool:
        return self.kib <= MEMORY_KIB


class Run(msgspec.Struct, frozen=True):
    """All that was measured: what the JSON file holds."""

    trials: list[Trial]
    shapes: list[Shape]
    others: float  # cores that processes outside the benchmark kept busy meanwhile


def quantile(values: Sequence[float], q: float) -> float:
    """The smallest value that at least the share `q` does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * q))] if ordered else 0.0


def phase(samples: Sequence[Sample], server_cores: float) -> Phase:
    """What the samples of a phase say. A request that failed counts with the time that its client waited for
    nothing."""
    plain = [sample for sample in samples if sample.kind != "log-in"]
    log_ins = [sample for sample in samples if sample.kind == "log-in"]
    times = [sample.ms for sample in plain]
    return Phase(
        requests=len(plain),
        failed=sum(not sample.served for sample in plain),
        p50_ms=quantile(times, 0.5),
        p99_ms=quantile(times, 0.99),
        log_ins=len(log_ins),
        log_ins_failed=sum(not sample.served for sample in log_ins),
        log_in_max_ms=max((sample.ms for sample in log_ins), default=0.0),
        server_cores=server_cores,
    )


def attack_table(trials: Sequence[Trial]) -> str:
    header = (
        "attack from one address",
        "p99 before, ms",
        "p99 beside, ms",
        "not served",
        "slowest log-in, ms",
        "node, cores",
        "holds",
    )
    body = [
        (
            trial.title,
            f"{trial.usual.p99_ms:,.1f}",
            f"{trial.beside.p99_ms:,.1f}",
            _share(trial.beside),
            f"{trial.beside.log_in_max_ms:,.0f}",
            f"{trial.beside.server_cores:.2f}",
            "yes" if trial.holds else "**no**",
        )
        for trial in trials
    ]
    return rows(header, body)


def _share(beside: Phase) -> str:
    """Honest requests that were not served, of all; log-ins among them."""
    failed = beside.failed + beside.log_ins_failed
    return f"{failed} of {beside.requests + beside.log_ins}" if failed else "0"


def memory_table(shapes: Sequence[Shape]) -> str:
    header = ("what a connection sends", "KiB each", "still open", "holds")
    body = [
        (shape.title, f"{shape.kib:.1f}", f"{shape.open} of {shape.opened}", "yes" if shape.holds else "**no**")
        for shape in shapes
    ]
    return rows(header, body)


def summary(run: Run) -> str:
    """Both tables with what they mean, and how many rows hold."""
    parts = []
    if run.trials:
        held = sum(trial.holds for trial in run.trials)
        parts += [
            paragraph(
                "Honest clients beside each attack. It holds when each of their requests is served, with a p99 under "
                f"{LIMIT_MS:g} ms and under {TIMES:g} times what it was just before (under {SAME_MS:g} ms it counts "
                f"as the same): {held} of {len(run.trials)}."
            ),
            attack_table(run.trials),
        ]
    if run.shapes:
        held = sum(shape.holds for shape in run.shapes)
        parts += [
            paragraph(
                f"Memory of the node for each hostile connection. It holds when that is at most {MEMORY_KIB:g} KiB: "
                f"{held} of {len(run.shapes)}. Connections that the node has closed by then hold nothing."
            ),
            memory_table(run.shapes),
        ]
    return "\n\n".join(parts)


def paragraph(text: str) -> str:
    """The text in lines of a document's width."""
    return fill(text, COLUMNS, break_long_words=False, break_on_hyphens=False)


def put_into(document: str, text: str) -> str:
    """The document with the text between its two marks. Raises ValueError when it has no such place."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document has no place for the figures: {BEGIN!r} … {END!r}")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"
