"""The two hot routes: submit an action, and read the board. A fast, a direct and a Quart handler serve both alike.

The answer with a board is encoded once per snapshot and limit, and shared by all clients without a token. A client with
a token also gets its own rank and score. The rules are in operations.submit_action and storage.board_cache.
"""

import re
from collections.abc import Iterator, Mapping
from email.utils import formatdate
from functools import partial
from typing import NamedTuple

import msgspec
from prometheus_client import Counter

from scoreboard.domain.boards import READ_SIZE, TOP_SIZE, Snapshot, rfc3339, user_id
from scoreboard.domain.errors import Code, Refusal, invalid_request
from scoreboard.domain.outcomes import Duplicate, Held, Outcome, Recorded
from scoreboard.domain.paths import LEADERBOARD_PATH, SUBMIT_PATH
from scoreboard.domain.queries import OUT_OF_BOUNDS, parse_query
from scoreboard.http.handlers import DEFERRED, Deferred, RespondCallback
from scoreboard.http.request import Request, Response
from scoreboard.operations.action_queue import Pending
from scoreboard.operations.read_leaderboard import Leaderboard
from scoreboard.operations.submit_action import SubmitAction, Unasked
from scoreboard.storage.board_cache import Standing
from scoreboard.telemetry import metrics
from scoreboard.web.authorization import Bearer
from scoreboard.web.conditional import TaggedResponse, conditional, tagged
from scoreboard.web.json_body import NOT_JSON, is_json
from scoreboard.web.problems import problem
from scoreboard.web.rate_limit_fields import UserFields
from scoreboard.web.responses import JSON, PRIVATE, success
from scoreboard.web.route import Route
from scoreboard.web.schemas import (
    ActionBody,
    ActionHeaders,
    HeldAction,
    HeldActionAnswer,
    LeaderboardAnswer,
    LeaderboardQuery,
    Scored,
    ScoredAnswer,
)

DUPLICATE = Refusal(Code.DUPLICATE_ACTION, "This action was processed before; this is what it led to.")
ID_REUSED = Refusal(Code.DUPLICATE_ACTION, "This actionId was processed before, with another body.")
REPLAYED = b"idempotency-replayed: true\r\n"
NO_LIMIT = UserFields(0)

# A cache may store the answer and must ask each time whether it is current; it differs with and without a token.
_PUBLIC = b"cache-control: no-cache\r\nvary: authorization\r\n"
_PRIVATE = b"cache-control: private, no-cache\r\nvary: authorization\r\n"

_counters: dict[str, Counter] = {}  # by result; prometheus_client's own look-up takes a lock

_encode = msgspec.json.Encoder().encode
_WHOLE = re.compile(r"[1-9][0-9]{0,2}").fullmatch


class _EncodedBoard(NamedTuple):
    """A snapshot's answer. `start` + the caller's own place, if there is a caller, + `end` is the body."""

    snapshot: Snapshot
    start: bytes
    end: bytes
    response: Response  # to a client without a token
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


def held(outcome: Held) -> HeldAction:
    """An action that waits, or waited, for a decision, as clients read it."""
    return HeldAction(
        actionId=outcome.action_id,
        actionType=outcome.action_type,
        status=outcome.status,
        points=outcome.points,
        heldAt=rfc3339(outcome.held_ms),
        expiresAt=rfc3339(outcome.expires_ms),
        reason=outcome.reason,
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
        return invalid_request("limit", f"must be a whole number from 1 to {READ_SIZE}, given once")
    return int(given[0])


_LIMITS = {b"": TOP_SIZE} | {b"limit=%d" % limit: limit for limit in range(1, READ_SIZE + 1)}


def encode_board(snapshot: Snapshot, limit: int) -> _EncodedBoard:
    """The answer that shows the first `limit` rows of a snapshot."""
    start = b'{"success":true,"data":{"leaderboard":%b' % _encode(snapshot.rows[:limit])
    end = b',"lastUpdated":"%b"%b}}' % (
        rfc3339(snapshot.updated_ms).encode(),
        b',"stale":true' if snapshot.stale else b"",
    )
    modified = b""
    if snapshot.last_modified and limit <= TOP_SIZE:  # the date is that of the shown rows' last change
        modified = b"last-modified: %b\r\n" % formatdate(snapshot.last_modified, usegmt=True).encode()
    response, etag = tagged(start + end, JSON + _PUBLIC + modified)
    return _EncodedBoard(snapshot, start, end, response, etag)


def with_own_place(board: _EncodedBoard, standing: Standing) -> TaggedResponse:
    """The same answer with the caller's own rank and score."""
    rank = b"null" if standing.rank is None else b"%d" % standing.rank
    body = b'%b,"currentUser":{"rank":%b,"score":%d}%b' % (board.start, rank, standing.score, board.end)
    return tagged(body, JSON + _PRIVATE)  # without a date: one's own place changes while the shown rows do not


def outcome_response(request: Request, outcome: Outcome, limit: UserFields = NO_LIMIT) -> Response:
    """The response to an action with this outcome, which is counted too. `limit`: the fields that tell of it."""
    _count(outcome)
    if isinstance(outcome, Recorded):
        return success(scored(outcome), fields=PRIVATE + limit.recorded(outcome.left))
    if isinstance(outcome, Duplicate):
        if outcome.original is None:
            return problem(ID_REUSED, request.request_id, fields=limit.policy)
        return problem(DUPLICATE, request.request_id, data=scored(outcome.original), fields=REPLAYED + limit.policy)
    if isinstance(outcome, Held):
        return success(held(outcome), status=202, fields=PRIVATE + limit.policy)
    return problem(outcome, request.request_id, fields=limit.policy)


def outcome_kind(outcome: Outcome) -> str:
    """The outcome's label in metrics."""
    return (
        outcome.code.lower()
        if isinstance(outcome, Refusal)
        else "recorded"
        if isinstance(outcome, Recorded)
        else "held"
        if isinstance(outcome, Held)
        else "duplicate_action"
    )


def count_outcomes(kinds: Mapping[str, int]) -> None:
    """Counts so many outcomes of each kind."""
    for kind, number in kinds.items():
        counter = _counters.get(kind) or _counters.setdefault(kind, metrics.SCORE_UPDATES.labels(kind))
        counter.inc(number)


def _count(outcome: Outcome) -> None:
    kind = outcome_kind(outcome)
    counter = _counters.get(kind) or _counters.setdefault(kind, metrics.SCORE_UPDATES.labels(kind))
    counter.inc()


# ---- routes ---------------------------------------------------------------------------------------------------------


class ScoreRoutes:
    """The routes of `/scores` but for the live transports (those are in web.routes.live)."""

    __slots__ = ("_authenticator", "_encoded", "_leaderboard", "_limit", "_submit_action")

    def __init__(
        self, authenticator: Bearer, submit_action: SubmitAction, leaderboard: Leaderboard, *, per_minute: int = 0
    ) -> None:
        """`per_minute`: actions of a user, as answers tell; 0: no limit."""
        self._limit = UserFields(per_minute)
        self._authenticator, self._submit_action, self._leaderboard = authenticator, submit_action, leaderboard
        self._encoded: dict[int, _EncodedBoard] = {}  # the newest answer by limit: at most 100

    def routes(self) -> Iterator[Route]:
        """Both. They are direct routes, since most requests are theirs."""
        yield Route(
            method="POST",
            path=SUBMIT_PATH,
            handler=self.submit,
            fast=self.submit_fast,
            direct=True,
            name="submit",
            auth="required",
            request_type=ActionBody,
            headers_type=ActionHeaders,
            response_type=ScoredAnswer,
            other_responses=((202, HeldActionAnswer),),
            errors=(401, 403, 409, 415),
        )
        yield Route(
            method="GET",
            path=LEADERBOARD_PATH,
            handler=self.read,
            fast=self.read_fast,
            direct=True,
            auth="optional",
            query_type=LeaderboardQuery,
            response_type=LeaderboardAnswer,
            errors=(401,),
        )

    async def submit(self, request: Request) -> Response:
        """Award points for an action."""
        pending = self._begin_submit(request)
        if isinstance(pending, Unasked):
            asked = await self._submit_action.ask(pending)
            pending = outcome_response(request, asked, self._limit) if isinstance(asked, Refusal) else asked
        if isinstance(pending, Response):
            return pending
        return outcome_response(request, await pending.wait(), self._limit)

    def submit_fast(self, request: Request, respond: RespondCallback) -> Response | Deferred | None:
        """The same without a task that waits for the outcome. None: another server must be asked first, and `submit`
        does that."""
        pending = self._begin_submit(request)
        if isinstance(pending, Response):
            return pending
        if isinstance(pending, Unasked):
            return None
        pending.add_done_callback(lambda outcome: respond(partial(outcome_response, request, outcome, self._limit)))
        return DEFERRED

    def _begin_submit(self, request: Request) -> Pending | Unasked | Response:
        identity = self._authenticator.require(request)
        if isinstance(identity, Refusal):
            return problem(identity, request.request_id)
        if not is_json(request):
            return problem(NOT_JSON, request.request_id)
        signature = request.header(b"x-action-signature").decode("latin-1")
        pending = self._submit_action.submit(identity, signature, request.body, request.request_id.decode())
        return outcome_response(request, pending, self._limit) if isinstance(pending, Refusal) else pending

    async def read(self, request: Request) -> Response:
        """Read the best players, and one's own place."""
        limit = read_limit(request.query)
        if isinstance(limit, Refusal):
            return problem(limit, request.request_id)
        identity = self._authenticator.identify(request)
        if isinstance(identity, Refusal):
            return problem(identity, request.request_id)
        board = self._encode(await self._leaderboard.snapshot(), limit)
        if identity is None:
            return conditional(request, board.response, board.etag)
        return conditional(request, *with_own_place(board, await self._leaderboard.standing(identity.user)))

    def read_fast(self, request: Request, _respond: RespondCallback) -> Response | None:
        """The same for a client without a token while the cached board is current; None: `read` must be called."""
        limit = read_limit(request.query)
        if isinstance(limit, Refusal) or request.has(b"authorization"):
            return None
        snapshot = self._leaderboard.current_snapshot()
        if snapshot is None:
            return None
        board = self._encode(snapshot, limit)
        return conditional(request, board.response, board.etag)

    def _encode(self, snapshot: Snapshot, limit: int) -> _EncodedBoard:
        board = self._encoded.get(limit)
        if board is None or board.snapshot is not snapshot:
            board = self._encoded[limit] = encode_board(snapshot, limit)
        return board
