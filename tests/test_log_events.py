"""The catalogue of what drivers, storage and workers log: an operator searches for these words, so each is written down
once."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "scoreboard"
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
# snake_case: what it is about, then what has happened to it
SHAPE = re.compile(r"[a-z]+(_[a-z]+)+")

EVENTS = {
    "anomalies_not_read": "the anomaly rules can't read the action log; logged once until they can",
    "asyncio_callback_failed": "an exception that only asyncio's own handler saw; nothing ended",
    "batch_interrupted": "a committer's batch had no answer: it is tried once more, PostgreSQL tells which try counts",
    "board_check_failed": "the board could not be compared with PostgreSQL; logged once for each reason",
    "board_confirmed": "the board agrees with PostgreSQL again",
    "board_became_stale": "the board may not agree with PostgreSQL, and is shown as stale; with the reasons",
    "board_refresh_failed": "a moderator's decision could not be sent to the boards at once; the projector does it",
    "board_repaired": "the projector has renumbered, completed or rebuilt the board",
    "commit_failed": "a batch of actions was not recorded; their clients were told",
    "connections_replaced": "all connections to a store are opened anew",
    "history_lost": "PostgreSQL does not know actions that it had recorded: an older database was restored",
    "housekeeping_done": "partitions were made, old rows deleted, or a failure is over",
    "housekeeping_failed": "a run of the housekeeping failed; logged once until one succeeds",
    "log_key_missing": "the transparency log has no key: it grows, but nothing of it is signed or proven",
    "log_record_changed": "a stored action is not the one that was sealed: somebody has changed it",
    "messages_not_read": "the outbox of messages to other servers can't be read; logged once until it can",
    "migrations_applied": "the schema was brought up to date",
    "partition_refused": "a month's partition of the action log can't be made; logged once for each",
    "postgres_unavailable": "PostgreSQL does not answer: the start, or a committer, waits for it",
    "redis_eviction_found": "Redis' maxmemory-policy would throw keys away",
    "redis_shared": "another installation uses the same keys of this Redis",
    "sealing_failed": "the transparency log could not be continued; logged once until it can",
    "sealing_late": "records wait for more than a minute: a transaction that writes to the log does not end",
    "sealing_resumed": "the transparency log is continued again",
    "skeletons_failed": "missing skeletons of user names could not be written now",
    "skeletons_written": "missing skeletons of user names were written",
    "store_condition_changed": "a store is up, down, full or read-only since now",
    "validation_done": "held actions whose time was over were decided, or a failure is over",
    "validation_failed": "a run of the work on held actions failed; logged once until one succeeds",
    "writer_renumbered": "a committer goes on under a new number, after a lost history",
}


def logged(tree: ast.AST) -> Iterator[str]:
    """The first argument of each call of `log`: an event, or what it is instead."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and node.args):
            continue
        match node.func:
            case ast.Attribute(ast.Name("log"), level) if level in LEVELS:
                yield ast.literal_eval(node.args[0]) if isinstance(node.args[0], ast.Constant) else "not a literal"
            case ast.Name("level") | ast.IfExp():  # the level is chosen first
                yield ast.literal_eval(node.args[0]) if isinstance(node.args[0], ast.Constant) else "not a literal"


def test_drivers_storage_and_workers_log_what_the_catalogue_has() -> None:
    """Each event that is logged is in the catalogue, and the catalogue has no other."""
    files = [*PACKAGE.glob("drivers/*.py"), *PACKAGE.glob("storage/**/*.py"), *PACKAGE.glob("workers/*.py")]
    assert {event for path in files for event in logged(ast.parse(path.read_text()))} == set(EVENTS)


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_is_snake_case(event: str) -> None:
    """A search for one word finds it; no event is a sentence."""
    assert SHAPE.fullmatch(event)
