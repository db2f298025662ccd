"""Sockets, and the poller that finds the readable ones. Knows nothing of HTTP or of leaderboards."""
