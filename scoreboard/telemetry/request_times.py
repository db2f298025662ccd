"""How long requests took, by route and class of status: a histogram that costs half a microsecond a request.

`http.connection` calls `record` once for each request that is answered. Streams, WebSockets and long polls that waited
are left out, as their client chooses how long they last (`Request.is_timed`). The composition root names the routes
first. A path of no route counts as "other", so requests for new paths make no new series. Prometheus' own Histogram
takes a lock and makes objects, which costs ten times as much.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from scoreboard.telemetry.metrics import REGISTRY, SHORT_BUCKETS

STATUS_CLASSES = 5  # 1xx to 5xx
BUCKET_COUNT = len(SHORT_BUCKETS) + 1  # the last bucket has no bound
OTHER = "other"
PARAMETER = re.compile(r"<(?:[^<>:]*:)?([^<>]+)>")

# Each route has STATUS_CLASSES rows, each row BUCKET_COUNT counts and a sum of seconds.
_names: list[str] = []
_first_row: dict[bytes, int] = {}  # of a route without parameters, by its path
_patterns: list[tuple[Callable[[bytes], object], int]] = []  # of one with parameters
_counts: list[int] = []
_sums: list[float] = []


def name_routes(rules: Iterable[str]) -> None:
    """Adds these routes, as Quart writes them: "/avatars/<user_id>". A route that was added before keeps its counts."""
    for rule in sorted(rules):
        name = PARAMETER.sub(r"{\1}", rule)
        if name not in _names:
            first = len(_names) * STATUS_CLASSES
            _names.append(name)
            _counts.extend([0] * STATUS_CLASSES * BUCKET_COUNT)
            _sums.extend([0.0] * STATUS_CLASSES)
            if name == rule:
                _first_row[rule.encode()] = first
            else:
                fixed = PARAMETER.split(rule)[::2]
                _patterns.append((re.compile("[^/]+".join(map(re.escape, fixed)).encode()).fullmatch, first))


def route_of(path: bytes) -> str:
    """The name of the route that a path belongs to."""
    return _names[_find(path) // STATUS_CLASSES]


def record(path: bytes, status: int, seconds: float) -> None:
    """Counts one request of `path` that was answered with `status` after `seconds`."""
    row = _first_row.get(path)
    if row is None:
        row = _find(path)
    row += status // 100 - 1
    _counts[row * BUCKET_COUNT + bisect_left(SHORT_BUCKETS, seconds)] += 1
    _sums[row] += seconds


def _find(path: bytes) -> int:
    row = _first_row.get(path)
    if row is not None:
        return row
    return next((row for matches, row in _patterns if matches(path)), 0)


class _RequestTimes(Collector):
    """Makes the histogram when /metrics is read."""

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(
            "scoreboard_http_request_seconds",
            "From a request's last byte to its answer, without streams, WebSockets and long polls that waited",
            labels=("route", "status"),
        )
        for row, seconds in enumerate(_sums):
            counts = _counts[row * BUCKET_COUNT : (row + 1) * BUCKET_COUNT]
            if any(counts):
                total, buckets = 0, []
                for bound, count in zip((*map(str, SHORT_BUCKETS), "+Inf"), counts, strict=True):
                    total += count
                    buckets.append((bound, total))
                family.add_metric(
                    (_names[row // STATUS_CLASSES], f"{row % STATUS_CLASSES + 1}xx"), buckets, sum_value=seconds
                )
        yield family


name_routes([OTHER])  # the first one: requests of no route are counted there
REGISTRY.register(_RequestTimes())
