"""The access log: which requests have a line, and what is in it."""

from ipaddress import ip_network
from typing import Any
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from scoreboard.http.request import Request
from scoreboard.settings.model import load_settings
from scoreboard.telemetry.request_times import name_routes
from scoreboard.web.access_log import ANY, ERRORS_PER_SECOND, NONE, SERVER_ERRORS, AccessLog
from scoreboard.web.client_address import Addresses

BOARD = b"/api/v1/scores/leaderboard"


class Peer:
    peer = ("10.0.0.5", 4711)


def request(target: bytes = BOARD, **headers: str) -> Request:
    fields = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return Request(Peer(), b"GET", target, "1.1", list(fields.items()), fields)  # type: ignore[arg-type]


def lines(log: AccessLog, *statuses: int, of: Request | None = None) -> list[Any]:
    with capture_logs() as written:
        for status in statuses:
            log.write(of or request(), status, 0.0123)
    return written


def test_a_line_says_who_asked_for_what_and_how_it_went() -> None:
    """Level, method, route, status, milliseconds, request id, the client's address behind our proxy, and the user;
    never the query."""
    name_routes([BOARD.decode()])
    asked = request(BOARD + b"?token=hidden", x_request_id="abc", x_forwarded_for="192.0.2.9")
    asked.user = uuid4()
    (line,) = lines(AccessLog(Addresses((ip_network("10.0.0.0/8"),)), "all"), 200, of=asked)
    assert line == {
        "event": "request",
        "log_level": "info",
        "method": "GET",
        "route": BOARD.decode(),
        "status": 200,
        "ms": 12.3,
        "request_id": "abc",
        "address": "192.0.2.9",
        "user": str(asked.user),
    }


def test_a_path_that_is_no_route_is_shown_and_cut() -> None:
    """A 404 has its path in the line, cut if it is long."""
    (line,) = lines(AccessLog(Addresses(()), "all"), 404, of=request(b"/wp-login.php" + b"x" * 5000))
    assert line["route"] == "other"
    assert line["path"].startswith("/wp-login.phpx")
    assert len(line["path"]) == 200


@pytest.mark.parametrize(("wanted", "lowest"), [("off", NONE), ("errors", SERVER_ERRORS), ("all", ANY), (10, ANY)])
def test_how_much_is_logged(wanted: str | int, lowest: int) -> None:
    """ "off" logs nothing, "errors" those of the server, N one request in N and every error."""
    log = AccessLog(Addresses(()), wanted, clock=lambda: 0.0)
    assert log.lowest_status == lowest
    statuses = [status for status in [200, 404] * 10 + [503] if status >= log.lowest_status]
    logged = [line["status"] for line in lines(log, *statuses)]
    assert logged == {"off": [], "errors": [503], "all": [200, 404] * 10 + [503], 10: [404, 404, 503]}[wanted]


def test_a_storm_of_errors_is_bounded_and_counted() -> None:
    """Of the errors of one second so many are written; the first one of a later second says how many were not."""
    now = 0.0
    log = AccessLog(Addresses(()), "errors", clock=lambda: now)
    assert len(lines(log, *[503] * 1000)) == ERRORS_PER_SECOND
    now = 1.0
    first, second = lines(log, 503, 500)
    assert first["omitted"] == 1000 - ERRORS_PER_SECOND
    assert "omitted" not in second
    assert (first["log_level"], second["log_level"]) == ("warning", "error")


@pytest.mark.parametrize("given", ["errors", "off", "all", "100", "false"])
def test_the_setting(given: str) -> None:
    """A word or a number; anything else is refused in one line, see the settings' tests."""
    stores = {"SCOREBOARD_POSTGRES__URL": "postgresql://db/x", "SCOREBOARD_REDIS__URL": "redis://cache"}
    settings = load_settings(None, {}, stores | {"SCOREBOARD_LOG__ACCESS": given})
    assert settings.log.access == {"100": 100, "false": "off"}.get(given, given)
