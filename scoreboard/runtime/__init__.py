"""Tools without knowledge of the scoreboard: sockets, HTTP/1.1, the server, supervision, settings, embedded stores.

Anyone may import from here; nothing here imports ours but `domain.errors`. A connection's way is `server` (accepts, guards, sweeps,
drains) → `http1` (request by request; the parser's side is in `messages`) → a handler of the express table, live, or `asgi` (Hypercorn
and Quart).
"""
