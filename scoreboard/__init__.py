"""A real-time leaderboard server: verified actions in, exact ranks out, every open browser told within a tenth of a
second.

The folders are the layers, and imports go one way. `cli` reads the command line and calls `app`, the composition root:
it opens the stores, builds the services and starts the tasks (read it first). `web` and `live` are what clients speak
to (HTTP routes, WebSockets); `operations` holds one use case a file; `storage` alone speaks to PostgreSQL and Redis;
`security` and `domain` are pure functions and values. `runtime` is the machinery underneath (sockets, HTTP/1.1,
settings, supervision) and knows nothing of scoreboards.
"""

__version__ = "0.1.0"
