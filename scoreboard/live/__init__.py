"""From "a score changed" to "bytes on a socket": subscription → batcher → hub → the transport of each viewer.

The subscription receives what the nodes publish. The batcher reads what is new and has it encoded, at most once a tick.
The hub sends it to every subscriber. A viewer that lags gets the newest board, never a queue of boards.
"""
