"""How long requests took, by route and class of status: a histogram for /metrics that costs a request half a
microsecond.

http1 calls `record` once for each request that it has answered. Streams, WebSockets and long polls that waited are left
out: how long they took is their client's choice (`Request.is_timed`). The composition root names the routes first. A
path that is no route's is "other", so nobody makes new series by asking for new paths. Prometheus' own Histogram takes
a lock and makes objects, ten times as much.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from scoreboard.telemetry.metrics import REGISTRY, SHORT_BUCKETS

CLASSES = 5  # of a status: 1xx to 5xx
BUCKETS = len(SHORT_BUCKETS) + 1  # the last one has no bound
OTHER = "other"
PARAMETER = re.compile(r"<(?:[^<>:]*:)?([^<>]+)>")

# Each route has CLASSES rows, each row BUCKETS counts and a sum of seconds.
_names: list[str] = []
_first_row: dict[bytes, int] = {}  # of a route without parameters, by its path
_patterns: list[tuple[Callable[[bytes], object], int]] = []  # of one with parameters
_counts: list[int] = []
_sums: list[float] = []


def name_routes(rules: Iterable[str]) -> None:
    """Adds these routes, as Quart writes them: "/avatars/<user_id>". One that is there keeps its figures."""
    for rule in sorted(rules):
        name = PARAMETER.sub(r"{\1}", rule)
        if name not in _names:
            first = len(_names) * CLASSES
            _names.append(name)
            _counts.extend([0] * CLASSES * BUCKETS)
            _sums.extend([0.0] * CLASSES)
            if name == rule:
                _first_row[rule.encode()] = first
            else:
                fixed = PARAMETER.split(rule)[::2]
                _patterns.append((re.compile("[^/]+".join(map(re.escape, fixed)).encode()).fullmatch, first))


def route_of(path: bytes) -> str:
    """The name of the route that a path belongs to."""
    return _names[_find(path) // CLASSES]


def record(path: bytes, status: int, seconds: float) -> None:
    """One request of that path was answered with that status, after so many seconds."""
    row = _first_row.get(path)
    if row is None:
        row = _find(path)
    row += status // 100 - 1
    _counts[row * BUCKETS + bisect_left(SHORT_BUCKETS, seconds)] += 1
    _sums[row] += seconds


def _find(path: bytes) -> int:
    row = _first_row.get(path)
    if row is not None:
        return row
    return next((row for matches, row in _patterns if matches(path)), 0)


class _RequestTimes(Collector):
    """The figures, when somebody asks."""

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(
            "scoreboard_http_request_seconds",
            "From a request's last byte to its answer, without streams, WebSockets and long polls that waited",
            labels=("route", "status"),
        )
        for row, seconds in enumerate(_sums):
            counts = _counts[row * BUCKETS : (row + 1) * BUCKETS]
            if any(counts):
                total, buckets = 0, []
                for bound, count in zip((*map(str, SHORT_BUCKETS), "+Inf"), counts, strict=True):
                    total += count
                    buckets.append((bound, total))
                family.add_metric((_names[row // CLASSES], f"{row % CLASSES + 1}xx"), buckets, sum_value=seconds)
        yield family


name_routes([OTHER])  # the first one: what is not found is counted there
REGISTRY.register(_RequestTimes())
