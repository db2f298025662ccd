"""A real-time leaderboard server: signed actions in, exact ranks out, to every open browser within a tenth of a second.

The folders are the layers, and imports go one way:

- `cli` reads the command line and calls `app`.
- `app` opens the stores, builds the parts of a node and starts its tasks. Read `app.node` first.
- `web` and `live` are what clients speak to: HTTP routes, and the transports of those who watch.
- `workers` are the tasks that run for ever: committers, projector, housekeeping.
- `operations` has one use case a file.
- `storage` alone reads and writes in PostgreSQL and Redis, over the connections of `drivers`.
- `domain` and `security` are rules and values: pure functions, no I/O.
- `http` and `net` are HTTP/1.1 and its sockets. They know nothing of scoreboards.
- `settings`, `embedded`, `telemetry` and `runtime` serve all others: configuration, servers for development, logs and
  metrics, supervision.
- `client` is the Python client, which needs only `domain` and `security`.

.github/ARCHITECTURE.md has the ways of an action and of a frame, and the bounds of every buffer.

Tested in tests/e2e/test_client_files.py.
"""

__version__ = "0.1.0"
