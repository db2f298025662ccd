"""What is counted during a load test, and what is said of it: percentiles, the table, the progress line, hints. Pure.

Locust's own statistics round to two digits; these are exact to a tenth of a millisecond, and know what a push lag is.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

BINS_PER_MS = 10  # times are kept in bins of 0.1 ms, so an hour of them takes no more room than a minute

# Kind of a refusal → what to do about it.
HINTS = {
    "429 ip": "The server admits so many requests a minute from one address (1,000 by default). For a load test from"
    " one machine start it with SCOREBOARD_LIMITS__IP_PER_MINUTE=0.",
    "429 user": "A user may act 10 times a minute by default, counted over the last run too (the users are the same"
    " ones). Wait a minute, take more --users at a lower --rate, or start the server with"
    " SCOREBOARD_LIMITS__USER_PER_MINUTE=0.",
    "401 UNAUTHORIZED": "The tokens are not this server's: name its data folder (--data-dir), or a file that its own"
    " `scoreboard users tokens` wrote (--tokens).",
    "close 4401": "The server does not know the watchers' tokens: see --data-dir and --tokens.",
    "close 1013": "The server admits 300 live connections from one address and 20 of one user by default: take fewer"
    " --watchers or more --users, or start it with SCOREBOARD_LIVE__CONNECTIONS_PER_IP=0 and"
    " SCOREBOARD_LIVE__CONNECTIONS_PER_USER=0.",
    "no answer": "Some requests got no answer at all: the server's log may tell why.",
}


class Times:
    """Durations in milliseconds."""

    def __init__(self) -> None:
        self._bins: Counter[int] = Counter()
        self.count, self.longest = 0, 0.0

    def add(self, milliseconds: float) -> None:
        self._bins[int(milliseconds * BINS_PER_MS)] += 1
        self.count += 1
        self.longest = max(self.longest, milliseconds)

    def percentile(self, share: float) -> float | None:
        """The smallest time that at least this share of all did not exceed; None without any."""
        passed, wanted = 0, share * self.count
        for bin_, number in sorted(self._bins.items()):
            passed += number
            if passed >= wanted:
                return bin_ / BINS_PER_MS
        return None

    @property
    def summary(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "p50_ms": self.percentile(0.5),
            "p90_ms": self.percentile(0.9),
            "p99_ms": self.percentile(0.99),
            "max_ms": round(self.longest, 1) if self.count else None,
        }


class Figures:
    """One run's. `refused` counts by kind: `429 user`, `503 SERVICE_UNAVAILABLE`, `no answer`, `close 1013`."""

    def __init__(self) -> None:
        self.posts = Times()  # accepted actions, request to answer
        self.lag = Times()  # a board's time to its arrival, once for each watcher and change
        self.personal = Times()  # an own action's time to the arrival of its event
        self.refused: Counter[str] = Counter()
        self.frames = self.bytes = self.gaps = self.connections = 0

    def summary(self, seconds: float) -> dict[str, Any]:
        """As it is written to summary.json."""
        return {
            "seconds": round(seconds, 1),
            "posts": self.posts.summary,
            "lag": self.lag.summary,
            "personal": self.personal.summary,
            "refused": dict(self.refused),
            "frames": self.frames,
            "bytes": self.bytes,
            "gaps": self.gaps,
            "connections": self.connections,
        }

    def progress(self, seconds: float, users: int) -> str:
        """One line for the terminal."""
        parts = [
            f"{seconds:4.0f} s",
            f"{users} users",
            f"{self.posts.count:,} actions, p99 {_ms(self.posts.percentile(0.99))}",
        ]
        parts.append(
            f"{self.frames:,} frames, lag p50 {_ms(self.lag.percentile(0.5))} p99 {_ms(self.lag.percentile(0.99))}"
        )
        if self.refused:
            parts.append(f"{self.refused.total():,} refused")
        return "  ".join(parts)


def refusal(status: int, body: bytes) -> str:
    """The kind of a refused request: the layer of a 429, else the code that the server gave."""
    if status == 0:
        return "no answer"
    try:
        problem = json.loads(body)
        word = problem.get("layer") or problem.get("code") or ""
    except (ValueError, AttributeError):
        word = ""  # a proxy's page
    return f"{status} {word}".rstrip()


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} ms"


def table(summary: Mapping[str, Any]) -> str:
    """The end of a run in a few lines, with hints if something was refused."""
    seconds = summary["seconds"] or 1
    rows: list[Sequence[str]] = [("", "count", "per s", "p50", "p90", "p99", "max")]
    for name, key in (("actions accepted", "posts"), ("push lag, board", "lag"), ("push lag, personal", "personal")):
        times = summary[key]
        shown = [_ms(times[column]) for column in ("p50_ms", "p90_ms", "p99_ms", "max_ms")]
        rows.append((name, f"{times['count']:,}", f"{times['count'] / seconds:,.1f}", *shown))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    lines.append(
        f"{summary['frames']:,} frames, {summary['bytes'] / 1e6:,.1f} MB,"
        f" over {summary['connections']:,} live connections,"
        f" {summary['gaps']} gaps, in {seconds:.0f} s"
    )
    refused = sorted(summary["refused"].items(), key=lambda item: -item[1])
    if refused:
        lines.append("refused: " + ", ".join(f"{count:,} × {kind}" for kind, count in refused))
    lines += [f"hint ({kind}): {HINTS[kind]}" for kind, _ in refused if kind in HINTS]
    return "\n".join(lines)
