"""The histogram of requests: which route and bucket a request is counted in."""

from uuid import uuid4

from scoreboard.telemetry import metrics
from scoreboard.telemetry.request_times import name_routes, record, route_of


def sample(name: str, **labels: str) -> float | None:
    return metrics.REGISTRY.get_sample_value(f"scoreboard_http_request_seconds_{name}", labels)


def test_a_request_is_counted_by_route_class_and_duration() -> None:
    """Buckets hold all that took no longer than their bound; sum and count are of all; other classes and routes have
    their own."""
    path = f"/{uuid4()}"
    name_routes([path])
    for status, seconds in ((200, 0.001), (204, 0.0011), (200, 30.0), (503, 0.002)):
        record(path.encode(), status, seconds)
    good = {"route": path, "status": "2xx"}
    assert [sample("bucket", le=bound, **good) for bound in ("0.0005", "0.001", "0.0025", "2.5", "+Inf")] == [
        0,
        1,
        2,
        2,
        3,
    ]
    assert sample("count", **good) == 3
    assert sample("sum", **good) == 0.001 + 0.0011 + 30.0
    assert sample("count", route=path, status="5xx") == 1
    assert sample("count", route=path, status="4xx") is None


def test_a_path_that_is_no_route_makes_no_series() -> None:
    """Whatever is asked for, the series are as many as the routes; a route with a parameter is one."""
    name_routes(["/pictures/<user_id>", "/rooms/<int:room>/board"])
    before = sample("count", route="other", status="4xx") or 0
    for _ in range(100):
        record(f"/nowhere/{uuid4()}".encode(), 404, 0.001)
        record(f"/pictures/{uuid4()}".encode(), 200, 0.001)
    assert sample("count", route="other", status="4xx") == before + 100
    assert sample("count", route="/pictures/{user_id}", status="2xx") == 100
    assert (route_of(b"/pictures/x"), route_of(b"/pictures/x/y"), route_of(b"/nowhere")) == (
        "/pictures/{user_id}",
        "other",
        "other",
    )
    assert (route_of(b"/rooms/7/board"), route_of(b"/rooms/7")) == ("/rooms/{room}/board", "other")


def test_naming_routes_again_keeps_the_figures() -> None:
    """Two nodes in one process, as in tests, count together."""
    path = f"/{uuid4()}"
    name_routes([path])
    record(path.encode(), 200, 0.1)
    name_routes([path])
    record(path.encode(), 200, 0.1)
    assert sample("count", route=path, status="2xx") == 2
