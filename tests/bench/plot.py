"""Draws the figures of one run as panels of bars, a group for each size of the load. A panel has its own scale, a
server its colour."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import msgspec
from matplotlib.figure import Figure as Picture

from tests.bench import fanout_report, report

OURS, THEIRS = (
    ("#2563eb", "#60a5fa", "#93c5fd", "#bfdbfe"),
    ("#d6a75c", "#94a3b8", "#7c9a92", "#b08ea2", "#c9b79c", "#8b8fa8", "#a3b18a"),
)


class Panel(msgspec.Struct, frozen=True):
    """`bars`: a server's title → its value at each size."""

    title: str
    bars: Mapping[str, Mapping[int, float]]
    digits: int = 0
    logarithmic: bool = False


def colours(names: Mapping[str, str]) -> dict[str, str]:
    """Title → colour, of name → title: blue is ours."""
    ours, theirs = iter(OURS), iter(THEIRS)
    return {title: next(ours if name.startswith("ours") else theirs) for name, title in names.items()}


def draw_actions(figures: Sequence[report.Figure], path: Path) -> None:
    values: list[tuple[str, Callable[[report.Figure], float]]] = [
        ("actions a second", lambda f: f.actions),
        ("p99 of an action, ms (less is better)", lambda f: f.p99_ms),
        ("leaderboard reads a second", lambda f: f.reads),
        ("server CPU an action, µs (less is better)", lambda f: f.cpu_us),
    ]
    names = {f.name: f.title for f in figures}
    panels = [
        Panel(title, {names[name]: {f.connections: value(f) for f in figures if f.name == name} for name in names})
        for title, value in values
    ]
    draw(panels, colours(names), "connections", path, columns=2, size=(9, 6))


def draw_fanout(figures: Sequence[fanout_report.Figure], path: Path) -> None:
    values: list[tuple[str, int, bool, Callable[[fanout_report.Figure], float]]] = [
        ("server CPU a delivered message, µs (logarithmic; less is better)", 1, True, lambda f: max(f.cpu_us, 0.1)),
        ("memory a viewer, KiB (less is better)", 1, False, lambda f: max(f.memory_kib, 0)),
        (
            "lag p99, ms (logarithmic; ours from the commit, a tick's wait included)",
            0,
            True,
            lambda f: max(f.lag_p99_ms, 1),
        ),
    ]
    names = {f.name: f.title for f in figures}
    panels = [
        Panel(
            title,
            {names[name]: {f.clients: value(f) for f in figures if f.name == name} for name in names},
            digits,
            logarithmic,
        )
        for title, digits, logarithmic, value in values
    ]
    draw(panels, colours(names), "viewers", path, columns=1, size=(12, 10))


def draw(
    panels: Sequence[Panel],
    colour: Mapping[str, str],
    unit: str,
    path: Path,
    *,
    columns: int,
    size: tuple[float, float],
) -> None:
    """Writes an SVG that is the same for the same figures."""
    mpl.rcParams.update(
        {
            "svg.hashsalt": "scoreboard",
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "svg.fonttype": "none",
        }
    )
    picture = Picture(figsize=size, layout="constrained")
    width = 0.8 / len(colour)
    for axes, panel in zip(picture.subplots(len(panels) // columns, columns).flat, panels, strict=True):
        groups = sorted({group for values in panel.bars.values() for group in values})
        for place, title in enumerate(colour):
            own = panel.bars[title]
            at = [
                number + (place - (len(colour) - 1) / 2) * width for number, group in enumerate(groups) if group in own
            ]
            heights = [own[group] for group in groups if group in own]
            bars = axes.bar(at, heights, width * 0.92, color=colour[title], label=title, log=panel.logarithmic)
            axes.bar_label(
                bars, [f"{h:,.{panel.digits}f}" for h in heights], fontsize=8 if width > 0.1 else 7, padding=2
            )
        axes.set_title(panel.title, loc="left", fontsize=10)
        axes.set_xticks(range(len(groups)), [f"{group:,} {unit}" for group in groups])
        axes.set_yticks([])
        axes.minorticks_off()
        axes.spines["left"].set_visible(False)
        axes.margins(y=0.15)
    handles, labels = picture.axes[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside upper center", ncols=min(4, len(colour)), frameon=False)
    picture.savefig(path, metadata={"Date": None})
