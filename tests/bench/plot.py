"""Draws the figures of one run as four panels of bars: actions, p99, reads, CPU. Each panel has its own scale; colours are the servers'."""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure as Picture

from tests.bench.report import Figure

COLOURS = {"ours": "#2563eb", "fastapi": "#94a3b8", "bun": "#d6a75c"}
PANELS: list[tuple[str, Callable[[Figure], float]]] = [
    ("actions a second", lambda f: f.actions),
    ("p99 of an action, ms (less is better)", lambda f: f.p99_ms),
    ("leaderboard reads a second", lambda f: f.reads),
    ("server CPU an action, µs (less is better)", lambda f: f.cpu_us),
]


def draw(figures: Sequence[Figure], path: Path) -> None:
    """Writes an SVG that is the same for the same figures."""
    connections = sorted({f.connections for f in figures})
    names = list(dict.fromkeys(f.name for f in figures))
    titles = {f.name: f.title for f in figures}
    width = 0.8 / len(names)
    mpl.rcParams.update(
        {"svg.hashsalt": "scoreboard", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none"}
    )
    picture = Picture(figsize=(9, 6), layout="constrained")
    for axes, (title, value) in zip(picture.subplots(2, 2).flat, PANELS, strict=True):
        for place, name in enumerate(names):
            own = {f.connections: value(f) for f in figures if f.name == name}
            at = [group + (place - (len(names) - 1) / 2) * width for group, c in enumerate(connections) if c in own]
            heights = [own[c] for c in connections if c in own]
            bars = axes.bar(at, heights, width * 0.92, color=COLOURS[name], label=titles[name])
            axes.bar_label(bars, [f"{h:,.0f}" for h in heights], fontsize=8, padding=2)
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xticks(range(len(connections)), [f"{c} connections" for c in connections])
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.margins(y=0.15)
    handles, labels = picture.axes[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside upper center", ncols=len(names), frameon=False)
    picture.savefig(path, metadata={"Date": None})
