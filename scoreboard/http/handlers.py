"""What the composition root hands to http1: who answers which request, and who writes heads and refusals.

Tested in tests/http/test_fast_path.py.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from scoreboard.domain.errors import Refusal
from scoreboard.http.request import Request, Response

Handler = Callable[[Request], Awaitable[Response | None]]
"""Answers a request of the express table. None: it has taken `request.socket` over (a stream); when it returns the
connection ends.

A handler of GET is asked for HEAD too, its body is left out; one that takes the socket over looks at `request.method`
itself.
"""


class Deferred(Enum):
    """What a prompt answers that has begun to wait without a task."""

    DEFERRED = "later"


DEFERRED = Deferred.DEFERRED

Respond = Callable[[Callable[[], Response]], None]
"""Takes what makes the answer, and writes it; an exception is answered as a handler's would be. Never raises, never
waits."""

FastHandler = Callable[[Request, Respond], Response | Deferred | None]
"""Answers a request of the prompt table without waiting.

DEFERRED: it has kept the reply and calls it once, whatever happens meanwhile, but not before it has returned; until then
the connection answers nothing else. None: it can't, the handler of the express table is asked.
"""


@dataclass(frozen=True, slots=True)
class Handlers:
    """What the composition root hands in: who answers what, and who writes heads."""

    direct: Mapping[tuple[bytes, bytes], Handler]  # (method, path without query)
    fast: Mapping[tuple[bytes, bytes], FastHandler]  # of the same paths, where it pays; no HEAD
    live_path: bytes
    # a WebSocket on request.socket, whose `unread_buffer` holds the head and what followed it
    live: Callable[[Request], Awaitable[None]]
    # the rest, given ResponseWriter: `Asgi.answer`; True when that can go on
    asgi: Callable[[Any, Request], Awaitable[bool]]
    # request, status, fields, length → the whole head with its blank line
    write_head: Callable[[Request, int, bytes, int | None], bytes]
    before: Callable[[Request], Response | None]  # asked first; an answer ends it
    problem: Callable[[Refusal, bytes], Response]  # a refusal and the request id → problem+json
    failed: Callable[[Request, Exception], Response]  # an express handler raised
    # what came was no request; `request` has the socket and little else
    malformed: Callable[[Request], None] = lambda _request: None
    # told of answers, their status and duration
    access: Callable[[Request, int, float], None] = lambda _request, _status, _seconds: None
    access_from: int = 1000  # the lowest status of which it is told
    # The key that an address's connections are counted under, share turns and are evicted by; asked once a connection,
    # as it is accepted.
    peer_group: Callable[[str], str] = lambda address: address
    # whether one more connection of that group is taken; then `released` is called once
    admit: Callable[[str], bool] = lambda _group: True
    released: Callable[[str], None] = lambda _group: None
    error_page: Callable[[Request, Response], Response] = lambda _request, answer: answer  # in place of 400 and more
