"""How live events reach a client: WebSocket, event stream, long poll; and what each asks."""
