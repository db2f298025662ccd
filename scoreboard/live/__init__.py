"""From "a score changed" to "bytes on a socket": reader → batcher → hub → each viewer's transport.

The reader hears hints, the batcher turns what is new into prepared bytes at most once a tick, the hub hands them to
whoever listens. A viewer that lags gets the newest board, never a queue of boards.
"""
