"""The fan-out's figures, what is expected of them, and the table. Pure: `fanout` and `fanout_parts` measure, `plot`
draws."""

from collections.abc import Sequence

import msgspec

from tests.bench.report import Expectation, rows

LAG_MS, READ_MS = 300.0, 100.0  # p99, commit → viewer and GET /leaderboard, with all viewers there
MEMORY_KIB = {"ours": 20.0, "ours-sse": 8.0, "ours-poll": 8.0}
# Our CPU a message divided by theirs, at most; Quart's is what the same stack costs as it comes.
CPU = {"node": 1.0, "websockets": 1.0, "nchan": 1.0, "picows": 1.0, "bun": 1.15, "quart": 0.1}


class Figure(msgspec.Struct, frozen=True):
    """One server with one number of viewers."""

    name: str
    title: str
    clients: int
    cpu_us: float  # user and system time of the server a delivered message, less `idle_us`
    # what the actions and reads cost with nobody watching, for each message; 0 for peers, which have none
    idle_us: float
    memory_kib: float  # PSS a viewer, at the end; of a long poll, before the first board: while all wait
    lag_p50_ms: float
    lag_p99_ms: float
    lag_max_ms: float
    read_p99_ms: float | None  # of GET /leaderboard meanwhile; None for peers
    ticks: float  # different boards a second; 10 are due
    messages: float  # delivered a second
    size: float  # bytes a message, with its framing
    opening: float  # seconds until all viewers were there
    gone: int  # viewers that the server closed
    refused: int  # actions and reads that were answered with 503
    viewers_cores: float  # what the viewers' processes took: near 1 and the lag is theirs
    others: float  # cores that processes outside the benchmark kept busy meanwhile


def middle(figures: Sequence[Figure]) -> list[Figure]:
    """Of several rounds the one in the middle by CPU, for each server and number of viewers; of two the better one."""
    groups: dict[tuple[str, int], list[Figure]] = {}
    for figure in figures:
        groups.setdefault((figure.name, figure.clients), []).append(figure)
    return [sorted(group, key=lambda f: f.cpu_us)[(len(group) - 1) // 2] for group in groups.values()]


def expectations(figures: Sequence[Figure]) -> list[Expectation]:
    """Those that the table can answer: CPU at each size, lag, reads and memory at the largest."""
    found = []
    ours = {f.clients: f for f in figures if f.name == "ours"}
    for peer in figures:
        own = ours.get(peer.clients)
        if own and (bound := CPU.get(peer.name)):
            text = f"CPU a message over {peer.title}'s, {peer.clients:,} viewers"
            found.append(Expectation(text, bound, own.cpu_us / peer.cpu_us, most=True))
    if ours:
        most = ours[max(ours)]
        found.append(
            Expectation(
                f"lag, commit → viewer, p99, {most.clients:,} viewers", LAG_MS, most.lag_p99_ms, "ms", most=True
            )
        )
        assert most.read_p99_ms is not None  # ours are read
        found.append(
            Expectation(
                f"GET /leaderboard meanwhile, p99, {most.clients:,} viewers", READ_MS, most.read_p99_ms, "ms", most=True
            )
        )
    for name, bound in MEMORY_KIB.items():
        if own := max((f for f in figures if f.name == name), key=lambda f: f.clients, default=None):
            found.append(
                Expectation(
                    f"memory a viewer, {own.title}, {own.clients:,} viewers", bound, own.memory_kib, "KiB", most=True
                )
            )
    return found


def table(figures: Sequence[Figure]) -> str:
    """Every figure; `ours is` = our WebSocket's CPU divided by that row's."""
    ours = {f.clients: f for f in figures if f.name == "ours"}
    header = (
        "server",
        "viewers",
        "CPU µs a message",
        "ours is",
        "actions' share",
        "KiB a viewer",
        "lag p50 ms",
        "p99",
        "max",
        "GET p99 ms",
        "boards/s",
        "messages/s",
        "bytes",
        "opening s",
        "closed",
        "503s",
        "viewers' cores",
        "others' cores",
    )
    body = []
    for f in sorted(figures, key=lambda f: f.clients):
        own = ours.get(f.clients)
        body.append(
            (
                f.title,
                f"{f.clients:,}",
                f"{f.cpu_us:.2f}",
                f"{own.cpu_us / f.cpu_us:.2f} ×" if own and f is not own else "–",
                f"{f.idle_us:.2f}" if f.idle_us else "–",
                f"{f.memory_kib:.1f}",
                f"{f.lag_p50_ms:.0f}",
                f"{f.lag_p99_ms:.0f}",
                f"{f.lag_max_ms:.0f}",
                "–" if f.read_p99_ms is None else f"{f.read_p99_ms:.0f}",
                f"{f.ticks:.1f}",
                f"{f.messages:,.0f}",
                f"{f.size:,.0f}",
                f"{f.opening:.1f}",
                str(f.gone),
                str(f.refused),
                f"{f.viewers_cores:.2f}",
                f"{f.others:.2f}",
            )
        )
    return rows(header, body)
