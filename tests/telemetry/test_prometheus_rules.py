"""The alert rules for Prometheus: each names metrics that a node has, with labels that these have."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from scoreboard.domain.anomalies import AnomalyRule
from scoreboard.telemetry import metrics, request_times
from scoreboard.workers import anomalies  # registers the series of its counters

RULES_FILE = Path(__file__).parents[2] / "config" / "prometheus-rules.yml"
METRIC = re.compile(r"\b((?:scoreboard|process)_[a-z0-9_]+|up)\b(?:\{([^}]*)\})?")
LABEL = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
PROMETHEUS_OWN = {"up", "process_open_fds", "process_max_fds"}  # of the scrape; and of Linux, where nodes run
assert anomalies
assert request_times


def rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load(RULES_FILE.read_text())["groups"]:
        yield from group["rules"]


def exported() -> dict[str, set[str]]:
    """The names of all series, and the labels that they may have."""
    found = dict[str, set[str]]()
    for collector in set(metrics.REGISTRY._names_to_collectors.values()):
        labels = {*getattr(collector, "_labelnames", ())}
        for name in metrics.REGISTRY._collector_to_names[collector]:
            found[name] = labels
    return found | {"scoreboard_http_requests_total": {"handler", "status"}}


@pytest.mark.parametrize("rule", list(rules()), ids=lambda rule: rule["alert"])
def test_a_rule_names_what_there_is(rule: dict[str, Any]) -> None:
    """Metrics and labels of the code, a severity, and a sentence for whoever is called."""
    there = exported()
    named = METRIC.findall(rule["expr"])
    assert named
    for name, labels in named:
        if name not in PROMETHEUS_OWN:
            assert name in there
            assert {label for label, _ in LABEL.findall(labels)} <= there[name]
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert len(rule["annotations"]["summary"]) > 20


def test_no_two_rules_have_one_name() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len({*names})


def test_the_specifications_alerts_are_there() -> None:
    """Score jumps of more than 1000 points, and users with more than 100 actions an hour."""
    rules_named = {
        value for rule in rules() for _, labels in METRIC.findall(rule["expr"]) for _, value in LABEL.findall(labels)
    }
    assert {"points_jump", "action_rate"} <= rules_named


def test_every_rule_has_its_series_before_its_first_hit() -> None:
    """A counter that begins with 1 has not increased for Prometheus: the first flag would go unnoticed."""
    for rule in AnomalyRule:
        assert metrics.REGISTRY.get_sample_value("scoreboard_anomalies_total", {"rule": rule}) is not None
    for result in ("dead", "dropped"):
        labels = {"channel": "alerts", "result": result}
        assert metrics.REGISTRY.get_sample_value("scoreboard_outgoing_messages_total", labels) is not None
