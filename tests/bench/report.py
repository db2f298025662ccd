"""Turns figures into the table, the ratios to this server and the verdicts. Pure: `actions` measures, `plot` draws."""

from collections.abc import Sequence

import msgspec


class UnequalCountError(Exception):
    """The database does not hold what was answered: no figure is worth printing."""


class Figure(msgspec.Struct, frozen=True):
    """One server at one number of connections. Only made when every accepted answer was found in the database."""

    name: str
    title: str
    connections: int
    actions: float  # accepted, a second
    p50_ms: float
    p99_ms: float
    reads: float  # of the leaderboard, a second
    cpu_us: float  # user and system time of the server's process an action
    read_cpu_us: float  # the same a read
    batch: float | None  # actions a commit; None where the server doesn't tell
    not_ok: int  # answers other than 200
    others: float  # cores that processes outside the benchmark kept busy meanwhile


class Kept(msgspec.Struct, frozen=True):
    """What the stores hold: actions, their points, everybody's totals, and the totals on the Redis board."""

    actions: int
    points: int
    totals: int
    board: int


class Expectation(msgspec.Struct, frozen=True):
    """What should hold; `met` when the measured value is at least (or, `most`, at most) the bound."""

    text: str
    bound: float
    value: float
    unit: str = "times"
    most: bool = False

    @property
    def met(self) -> bool:
        return self.value <= self.bound if self.most else self.value >= self.bound


# Times as many actions as the peer that are expected, by number of connections: what the prototype did, less a whole
# server's other work.
ACTIONS = {"fastapi": {32: 2.5, 128: 4.0}, "bun": {32: 1.1, 128: 1.6}}
READS = {"fastapi": 10.0, "bun": 1.0}
CPU_US, CPU_AT = 150.0, 128


def middle(figures: Sequence[Figure]) -> list[Figure]:
    """Of several rounds the one in the middle by actions, for each server and number of connections; of two the better
    one."""
    groups: dict[tuple[str, int], list[Figure]] = {}
    for figure in figures:
        groups.setdefault((figure.name, figure.connections), []).append(figure)
    return [sorted(group, key=lambda f: f.actions)[len(group) // 2] for group in groups.values()]


def disagreement(accepted: int, kept: Kept) -> str | None:
    """Why no figure may be printed: the stores must hold exactly the accepted actions, and agree about their points.
    None when they do."""
    if kept.actions == accepted and kept.points == kept.totals == kept.board:
        return None
    return f"{accepted} actions were accepted, but the stores hold {kept}"


def expectations(figures: Sequence[Figure]) -> list[Expectation]:
    """Those that this run can answer: our server and the peer must both have been measured."""
    ours = {f.connections: f for f in figures if f.name == "ours"}
    found = []
    for peer in figures:
        if peer.name == "ours" or not (own := ours.get(peer.connections)):
            continue
        at = f"{peer.connections} connections"
        if bound := ACTIONS[peer.name].get(peer.connections):
            found.append(Expectation(f"actions/s over {peer.name}, {at}", bound, own.actions / peer.actions))
        if peer.name == "fastapi" and peer.connections in ACTIONS["fastapi"]:
            found.append(
                Expectation(f"p99 of an action over {peer.name}'s, {at}", 0.5, own.p99_ms / peer.p99_ms, most=True)
            )
        found.append(
            Expectation(f"leaderboard reads/s over {peer.name}, {at}", READS[peer.name], own.reads / peer.reads)
        )
    if own := ours.get(CPU_AT):
        found.append(
            Expectation(f"server CPU an action, {CPU_AT} connections", CPU_US, own.cpu_us, unit="µs", most=True)
        )
    return found


def rows(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (header, *body)]
    return "\n".join([lines[0], "|" + "---|" * len(header), *lines[1:]])


def table(figures: Sequence[Figure]) -> str:
    """Every figure; `ours is` = this server's divided by that row's."""
    ours = {f.connections: f for f in figures if f.name == "ours"}

    def ratio(figure: Figure, own: float, theirs: float) -> str:
        return f"{own / theirs:.1f} ×" if figure.name != "ours" and figure.connections in ours else "–"

    header = (
        "server",
        "conn.",
        "actions/s",
        "ours is",
        "p50 ms",
        "p99 ms",
        "reads/s",
        "ours is",
        "CPU µs an action",
        "a read",
        "batch",
        "not 200",
        "others' cores",
    )
    body = []
    for f in sorted(figures, key=lambda f: f.connections):
        own = ours.get(f.connections, f)
        body.append(
            (
                f.title,
                str(f.connections),
                f"{f.actions:,.0f}",
                ratio(f, own.actions, f.actions),
                f"{f.p50_ms:.1f}",
                f"{f.p99_ms:.1f}",
                f"{f.reads:,.0f}",
                ratio(f, own.reads, f.reads),
                f"{f.cpu_us:.0f}",
                f"{f.read_cpu_us:.1f}",
                "–" if f.batch is None else f"{f.batch:.1f}",
                str(f.not_ok),
                f"{f.others:.2f}",
            )
        )
    return rows(header, body)


def verdicts(found: Sequence[Expectation]) -> str:
    body = [
        (
            e.text,
            f"{'at most' if e.most else 'at least'} {e.bound:g} {e.unit}",
            f"{e.value:.2f} {e.unit}",
            "met" if e.met else "**not met**",
        )
        for e in found
    ]
    return rows(("expectation", "bound", "measured", "verdict"), body)
