"""Log lines without secrets, metrics, durations of requests."""
