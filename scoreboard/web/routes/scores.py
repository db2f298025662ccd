"""Submit an action, read the board: the two hot routes, served by the prompt table, the express table and Quart alike.

A board's answer is prepared once per snapshot and limit and then shared by everybody who asks without a token; with
one, only the caller's own place is put in between. Rules are elsewhere: operations.submit_action, storage.board_cache.
"""

import re
from collections.abc import Awaitable, Callable
from datetime import UTC
from email.utils import formatdate, parsedate_to_datetime
from functools import partial
from typing import NamedTuple
from uuid import UUID

import msgspec
from prometheus_client import Counter

from scoreboard.domain.boards import READ_SIZE, TOP_SIZE, Snapshot, rfc3339, user_id
from scoreboard.domain.errors import Code, FieldError, Refusal
from scoreboard.domain.etags import strong_etag
from scoreboard.domain.outcomes import Duplicate, Outcome, Recorded
from scoreboard.domain.queries import OUT_OF_BOUNDS, parse_query
from scoreboard.http.handlers import DEFERRED, Deferred, Respond
from scoreboard.http.request import Request, Response
from scoreboard.operations.action_queue import Pending
from scoreboard.operations.authenticator import Identity
from scoreboard.storage.board_cache import Standing
from scoreboard.telemetry import metrics
from scoreboard.web.authorization import Bearer
from scoreboard.web.json_body import NOT_JSON, is_json
from scoreboard.web.problems import problem
from scoreboard.web.responses import JSON, success

Submit = Callable[[Identity, str, bytes, str], Pending | Refusal]

DUPLICATE = Refusal(Code.DUPLICATE_ACTION, "This action was processed before; this is what it led to.")
ID_REUSED = Refusal(Code.DUPLICATE_ACTION, "This actionId was processed before, with another body.")
REPLAYED = b"idempotency-replayed: true\r\n"

# no-cache: may be kept, must be asked about each time; the answer differs by the token, so caches keep the two apart.
_PUBLIC = b"cache-control: no-cache\r\nvary: authorization\r\n"
_PRIVATE = b"cache-control: private, no-cache\r\nvary: authorization\r\n"

DATE_BYTES = 64  # of an HTTP date; the longest form has 33

_counters: dict[str, Counter] = {}  # result → its series: prometheus_client's own look-up takes a lock

_encode = msgspec.json.Encoder().encode
_WHOLE = re.compile(r"[1-9][0-9]{0,2}").fullmatch


class Scored(msgspec.Struct, frozen=True):
    """The specification's answer to an action."""

    userId: str
    previousScore: int
    pointsAwarded: int
    newScore: int
    newRank: int | None
    timestamp: str


class _Prepared(NamedTuple):
    """A snapshot's answer: `lead` + the caller's own place, if any, + `tail` is the body."""

    snapshot: Snapshot
    lead: bytes
    tail: bytes
    response: Response  # to whoever asks without a token
    etag: bytes


# ---- pure -----------------------------------------------------------------------------------------------------------


def scored(recorded: Recorded) -> Scored:
    """A recorded action as clients read it."""
    return Scored(
        userId=user_id(recorded.user),
        previousScore=recorded.previous,
        pointsAwarded=recorded.points,
        newScore=recorded.new,
        newRank=recorded.rank,
        timestamp=rfc3339(recorded.at_ms),
    )


def read_limit(query: bytes) -> int | Refusal:
    """`limit` of a query string: 1 to 100, at most once, decimal digits."""
    known = _LIMITS.get(query)
    if known is not None:
        return known
    values = parse_query(query)
    if values is None:
        return OUT_OF_BOUNDS
    given = values.get("limit", [])
    if not given:
        return TOP_SIZE
    if len(given) > 1 or not _WHOLE(given[0]) or int(given[0]) > READ_SIZE:
        message = f"must be a whole number from 1 to {READ_SIZE}, given once"
        return Refusal(Code.INVALID_REQUEST, f"limit {message}", (FieldError("limit", message),))
    return int(given[0])


_LIMITS = {b"": TOP_SIZE} | {b"limit=%d" % limit: limit for limit in range(1, READ_SIZE + 1)}


def prepare(snapshot: Snapshot, limit: int) -> _Prepared:
    """The answer that shows the first `limit` rows of a snapshot."""
    lead = b'{"success":true,"data":{"leaderboard":%b' % _encode(snapshot.rows[:limit])
    tail = b',"lastUpdated":"%b"%b}}' % (
        rfc3339(snapshot.updated_ms).encode(),
        b',"stale":true' if snapshot.stale else b"",
    )
    modified = b""
    if snapshot.last_modified and limit <= TOP_SIZE:  # the date tells of the shown rows only
        modified = b"last-modified: %b\r\n" % formatdate(snapshot.last_modified, usegmt=True).encode()
    response, etag = _tagged(lead + tail, _PUBLIC + modified)
    return _Prepared(snapshot, lead, tail, response, etag)


def personal(prepared: _Prepared, standing: Standing) -> tuple[Response, bytes]:
    """The same with the caller's own place, and its ETag."""
    rank = b"null" if standing.rank is None else b"%d" % standing.rank
    body = b'%b,"currentUser":{"rank":%b,"score":%d}%b' % (prepared.lead, rank, standing.score, prepared.tail)
    return _tagged(body, _PRIVATE)  # without a date: one's own place changes while the shown rows don't


def _tagged(body: bytes, fields: bytes) -> tuple[Response, bytes]:
    etag = strong_etag(body)
    return Response(200, body, b"%b%betag: %b\r\n" % (JSON, fields, etag)), etag


def is_current(request: Request, etag: bytes) -> bool:
    """Whether If-None-Match names this ETag: a list, weak ones too (RFC 9110 section 13.1.2), or `*`.

    The list is not taken apart: an ETag of ours is a hash in quotes, which is found in it as it is.
    """
    if not request.header(b"if-none-match"):
        return False
    return any(name == b"if-none-match" and (etag in value or value.strip() == b"*") for name, value in request.headers)


def conditional(request: Request, response: Response, etag: bytes) -> Response:
    """The response, or 304 when the caller has it. The fields that tell how to keep it are the same for both."""
    if is_current(request, etag) or (request.has(b"if-modified-since") and is_unmodified(request, response.fields)):
        return Response(304, b"", response.fields.removeprefix(JSON))
    return response


def is_unmodified(request: Request, fields: bytes) -> bool:
    """Whether If-Modified-Since, without an If-None-Match, names the answer's Last-Modified or a later second (RFC
    9110, 13.1.3)."""
    modified = _LAST_MODIFIED(fields)
    if modified is None or request.has(b"if-none-match") or request.method not in {b"GET", b"HEAD"}:
        return False
    since = request.header(b"if-modified-since")
    if since == modified[1]:
        return True
    add_done_callback, last = _read_date(since), _read_date(modified[1])
    return add_done_callback is not None and last is not None and last <= add_done_callback


def _read_date(text: bytes) -> float | None:
    """Unix seconds of an HTTP date, in any of its three forms; None when it is none."""
    if len(text) > DATE_BYTES:
        return None
    try:
        date = parsedate_to_datetime(text.decode("ascii"))
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()  # asctime's form has no zone: it is UTC
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


_LAST_MODIFIED = re.compile(rb"(?:^|\n)last-modified: ([^\r]+)\r").search


def _told(request: Request, outcome: Outcome) -> Response:
    """What became of an action, counted and as its sender hears it."""
    _count(outcome)
    if isinstance(outcome, Recorded):
        return success(scored(outcome))
    if isinstance(outcome, Duplicate):
        if outcome.original is None:
            return problem(ID_REUSED, request.request_id)
        return problem(DUPLICATE, request.request_id, data=scored(outcome.original), fields=REPLAYED)
    return problem(outcome, request.request_id)


def _count(outcome: Outcome) -> None:
    kind = (
        outcome.code.lower()
        if isinstance(outcome, Refusal)
        else "recorded"
        if isinstance(outcome, Recorded)
        else "duplicate_action"
    )
    counter = _counters.get(kind) or _counters.setdefault(kind, metrics.SCORE_UPDATES.labels(kind))
    counter.inc()


# ---- routes ---------------------------------------------------------------------------------------------------------


class ScoreRoutes:
    """`submit`: operations.submit_action; `read`, `standing`, `fresh`: of the shared board. `fresh` is `read` where
    that need not wait."""

    __slots__ = ("_bearer", "_fresh", "_prepared", "_read", "_standing", "_submit")

    def __init__(
        self,
        bearer: Bearer,
        submit: Submit,
        read: Callable[[], Awaitable[Snapshot]],
        standing: Callable[[UUID], Awaitable[Standing]],
        fresh: Callable[[], Snapshot | None],
    ) -> None:
        self._bearer, self._submit, self._read, self._standing, self._fresh = bearer, submit, read, standing, fresh
        self._prepared: dict[int, _Prepared] = {}  # limit → newest answer: at most 100

    async def submit(self, request: Request) -> Response:
        """Award points for an action."""
        begun = self._begin(request)
        return begun if isinstance(begun, Response) else _told(request, await begun.wait())

    def submit_fast(self, request: Request, reply: Respond) -> Response | Deferred:
        """The same without a task that waits for the outcome."""
        begun = self._begin(request)
        if isinstance(begun, Response):
            return begun
        begun.add_done_callback(lambda outcome: reply(partial(_told, request, outcome)))
        return DEFERRED

    def _begin(self, request: Request) -> Pending | Response:
        identity = self._bearer.require(request)
        if isinstance(identity, Refusal):
            return problem(identity, request.request_id)
        if not is_json(request):
            return problem(NOT_JSON, request.request_id)
        signature = request.header(b"x-action-signature").decode("latin-1")
        begun = self._submit(identity, signature, request.body, request.request_id.decode())
        return _told(request, begun) if isinstance(begun, Refusal) else begun

    async def leaderboard(self, request: Request) -> Response:
        """Read the best players, and one's own place."""
        limit = read_limit(request.query)
        if isinstance(limit, Refusal):
            return problem(limit, request.request_id)
        identity = self._bearer.identify(request)
        if isinstance(identity, Refusal):
            return problem(identity, request.request_id)
        prepared = self._prepare(await self._read(), limit)
        if identity is None:
            return conditional(request, prepared.response, prepared.etag)
        return conditional(request, *personal(prepared, await self._standing(identity.user)))

    def leaderboard_fast(self, request: Request, _reply: Respond) -> Response | None:
        """The same for whoever asks without a token while the board at hand is new enough; None: `leaderboard` must be
        asked."""
        limit = read_limit(request.query)
        if isinstance(limit, Refusal) or request.has(b"authorization"):
            return None
        snapshot = self._fresh()
        if snapshot is None:
            return None
        prepared = self._prepare(snapshot, limit)
        return conditional(request, prepared.response, prepared.etag)

    def _prepare(self, snapshot: Snapshot, limit: int) -> _Prepared:
        prepared = self._prepared.get(limit)
        if prepared is None or prepared.snapshot is not snapshot:
            prepared = self._prepared[limit] = prepare(snapshot, limit)
        return prepared
