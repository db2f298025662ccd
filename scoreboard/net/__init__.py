"""Sockets and who has something to read. Knows nothing of HTTP or of ours."""
