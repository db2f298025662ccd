"""What a process tells its operator: log lines, metrics, durations of requests; secrets are taken out."""
