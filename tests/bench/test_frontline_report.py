"""Quantiles, verdicts, tables and the place in a document: `tests/bench/frontline_report.py`; what is counted:
`frontline_wire`."""

import pytest
from msgspec.structs import replace

from tests.bench import frontline_report
from tests.bench.frontline_report import BEGIN, END, Phase, Run, Sample, Shape, Trial
from tests.bench.frontline_wire import StatusCounter, frame

CALM = Phase(
    requests=300, failed=0, p50_ms=2.0, p99_ms=30.0, log_ins=3, log_ins_failed=0, log_in_max_ms=60.0, server_cores=0.1
)
TRIAL = Trial(
    "pings", "WebSocket pings", CALM, replace(CALM, p99_ms=50.0), connections=12, refused=0, statuses={"101": 12}
)
SHAPE = Shape("silent", "nothing", kib=5.04, opened=200, open=150)


def test_a_quantile_is_one_of_the_values() -> None:
    """The p99 of a hundred is the largest, of two hundred the second largest but one; none have 0."""
    assert frontline_report.quantile([*range(100)], 0.99) == 99
    assert frontline_report.quantile([*range(200)][::-1], 0.99) == 198
    assert frontline_report.quantile([7.0], 0.5) == 7.0
    assert frontline_report.quantile([], 0.99) == 0.0


def test_log_ins_are_apart() -> None:
    """They take as long as a password's hash: neither their time nor their failure is counted with other requests."""
    samples = [
        Sample("board", 1.0, served=True),
        Sample("action", 3.0, served=False),
        Sample("log-in", 700.0, served=False),
    ]
    found = frontline_report.phase(samples, 0.5)
    assert (found.requests, found.failed, found.p99_ms) == (2, 1, 3.0)
    assert (found.log_ins, found.log_ins_failed, found.log_in_max_ms, found.server_cores) == (1, 1, 700.0, 0.5)
    assert frontline_report.phase([], 0.0).log_in_max_ms == 0.0


@pytest.mark.parametrize(
    ("usual", "beside", "holds"),
    [
        (30.0, 59.0, True),
        (30.0, 60.0, False),
        (80.0, 99.0, True),
        (80.0, 100.0, False),
        (1.0, 19.0, True),
        (1.0, 21.0, False),
    ],
)
def test_when_a_node_holds(usual: float, beside: float, holds: bool) -> None:
    """Under 100 ms and under twice the usual; what is small is the same, however small the usual was."""
    assert replace(TRIAL, usual=replace(CALM, p99_ms=usual), beside=replace(CALM, p99_ms=beside)).holds is holds


def test_whoever_is_not_served_makes_it_fail() -> None:
    """However quick the others are, log-ins among them."""
    for change in ({"failed": 1}, {"log_ins_failed": 1}):
        assert not replace(TRIAL, beside=replace(CALM, **change)).holds


def test_the_tables() -> None:
    """A line an attack and a line a shape; what does not hold stands out, and the text says how many do."""
    slow = replace(TRIAL, title="other", beside=replace(CALM, p99_ms=1_234.5, failed=4, log_ins_failed=1))
    text = frontline_report.summary(
        Run([TRIAL, slow], [SHAPE, replace(SHAPE, title="half a head", kib=32.1)], others=0.0)
    )
    assert "| WebSocket pings | 30.0 | 50.0 | 0 | 60 | 0.10 | yes |" in text
    assert "| other | 30.0 | 1,234.5 | 5 of 303 | 60 | 0.10 | **no** |" in text
    assert "| nothing | 5.0 | 150 of 200 | yes |" in text
    assert "| half a head | 32.1 | 150 of 200 | **no** |" in text
    assert "1 of 2." in text
    assert frontline_report.summary(Run([], [], others=0.0)) == ""


def test_the_figures_of_a_document_are_replaced() -> None:
    """What stands round them stays, however often it is done; a document without a place for them is not touched."""
    document = f"before\n{BEGIN}\n\nold\n\n{END}\nafter\n"
    for text in ("one", "two"):
        document = frontline_report.put_into(document, text)
        assert document == f"before\n{BEGIN}\n\n{text}\n\n{END}\nafter\n"
    for broken in ("nothing", f"{BEGIN} only", f"{END} {BEGIN}"):
        with pytest.raises(ValueError, match="no place"):
            frontline_report.put_into(broken, "text")


@pytest.mark.parametrize("size", [1, 5, 12, 13, 1000])
def test_answers_are_counted_wherever_they_are_cut(size: int) -> None:
    """By their status lines; a body that ends in the middle of one is none."""
    data = (
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nHTTP/1.1 HTTP/1.1 429 Too Many\r\n\r\n"
        + b"HTTP/1.1 204 \r\n\r\n" * 3
    )
    counter = StatusCounter()
    assert sum(counter.feed(data[start : start + size]) for start in range(0, len(data), size)) == 5
    assert counter.statuses == {200: 1, 429: 1, 204: 3}


def test_a_frame_of_a_client() -> None:
    """Masked, with the shortest form of its length."""
    assert frame(9) == b"\x89\x80" + bytes(4)
    assert frame(1, b"x" * 126, final=False)[:4] == b"\x01\xfe\x00\x7e"
