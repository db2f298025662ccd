"""How live events reach a client: WebSocket, event stream, long poll; and how their requests are read."""
