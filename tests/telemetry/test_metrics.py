"""The text of `/metrics`. Who counts what is tested beside the module that counts."""

from scoreboard.telemetry import metrics


def test_metrics_render() -> None:
    """The text names every metric, with values and labels."""
    metrics.SCORE_UPDATES.labels("recorded").inc(0)
    metrics.PUSH_LAG.observe(0.004)
    text = metrics.render().decode()
    assert 'scoreboard_score_updates_total{result="recorded"}' in text
    assert 'scoreboard_push_lag_seconds_bucket{le="0.005"}' in text
    assert "scoreboard_websocket_connections 0.0" in text
    assert "process_resident_memory_bytes" in text
    assert "_created" not in text
