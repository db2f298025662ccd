"""What a user may do with all that is stored about them: read the history, export everything, be erased.

Tested in tests/web/routes/test_personal_data.py.
"""

import time
from collections.abc import Iterator
from typing import Annotated

import msgspec
import trio
from msgspec import Meta

from scoreboard.domain.account_rules import MAX_PASSWORD_LENGTH
from scoreboard.domain.errors import Code, LimitLayer, Refusal, rate_limited
from scoreboard.domain.outcomes import USER_DELETED
from scoreboard.domain.paths import EXPORT_PATH, HISTORY_PATH, PROFILE_PATH
from scoreboard.domain.queries import BAD_CURSOR, page_of
from scoreboard.domain.sliding_window import SlidingWindow
from scoreboard.http.request import Request, Response
from scoreboard.operations.accounts import Accounts
from scoreboard.operations.login_admission import Client
from scoreboard.operations.personal_data import action_fields, cursor_of, read_place
from scoreboard.web import json_body
from scoreboard.web.account_schemas import ExportAnswer, HistoryAnswer
from scoreboard.web.authorization import Bearer
from scoreboard.web.client_address import Addresses
from scoreboard.web.headers import ResponseHeaders
from scoreboard.web.problems import problem
from scoreboard.web.responses import PRIVATE, no_content, success
from scoreboard.web.route import Route
from scoreboard.web.schemas import NoContent, PageQuery
from scoreboard.web.streamed import StreamedResponse

EXPORTS_PER_MINUTE = 2  # of a user, on each node: each reads the whole history
MAX_EXPORTS = 4  # at a time on a node, half of PostgreSQL's pool; full: 503
EXPORT_TIMEOUT_SECONDS = 300.0  # of a whole export: a client that reads slowly must not hold a place for ever
EXPORT_FIELDS = PRIVATE + b'content-disposition: attachment; filename="scoreboard-export.json"\r\n'

EXPORTS_BUSY = Refusal(Code.SERVICE_UNAVAILABLE, "Too many exports at the moment.", retry_after=5)


class Erasure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The password, of a user who has one. Without one the log-in must be at most five minutes old."""

    password: Annotated[str, Meta(max_length=MAX_PASSWORD_LENGTH)] | None = None

    def __repr__(self) -> str:
        return "Erasure()"


_erasure = msgspec.json.Decoder(Erasure)


class PersonalDataRoutes:
    """The history, the export, and the erasure."""

    def __init__(self, accounts: Accounts, bearer: Bearer, addresses: Addresses, heads: ResponseHeaders) -> None:
        self._accounts, self._bearer, self._addresses, self._heads = accounts, bearer, addresses, heads
        self._exports, self._running = SlidingWindow(EXPORTS_PER_MINUTE), 0

    def routes(self) -> Iterator[Route]:
        """All three. The export keeps its socket, so Quart does not serve it."""
        yield Route(
            method="GET",
            path=HISTORY_PATH,
            handler=self.history,
            name="history",
            auth="required",
            query_type=PageQuery,
            response_type=HistoryAnswer,
            errors=(401,),
        )
        yield Route(
            method="GET",
            path=EXPORT_PATH,
            handler=self.export,
            direct=True,
            quart=False,
            name="export_me",
            auth="required",
            response_type=ExportAnswer,
            errors=(401,),
        )
        yield Route(
            method="DELETE",
            path=PROFILE_PATH,
            handler=self.erase,
            name="erase_me",
            auth="required",
            request_type=Erasure,
            response_type=NoContent,
            status=204,
            errors=(401, 403, 415),
        )

    async def history(self, request: Request) -> Response:
        """Read one's own actions, the newest first."""
        identity = self._bearer.require(request)
        page = page_of(request.query)
        if isinstance(identity, Refusal):
            return problem(identity, request.request_id)
        if isinstance(page, Refusal):
            return problem(page, request.request_id)
        place = read_place(page.cursor)
        if place is None:
            return problem(BAD_CURSOR, request.request_id)
        found = await self._accounts.history(identity, place, page.limit + 1)
        shown = found[: page.limit]
        following = cursor_of(shown[-1]) if len(found) > page.limit else None
        return success({"actions": [action_fields(action) for action in shown], "next": following})

    async def export(self, request: Request) -> Response | None:
        """Download all that is stored about oneself."""
        identity = self._bearer.require(request)
        if isinstance(identity, Refusal):
            return problem(identity, request.request_id)
        if request.method == b"HEAD":
            return Response(200, b"", EXPORT_FIELDS)
        if wait := self._exports.admit(str(identity.user), trio.current_time()):
            return problem(rate_limited(LimitLayer.USER, "Too many exports.", wait), request.request_id)
        if self._running >= MAX_EXPORTS:
            return problem(EXPORTS_BUSY, request.request_id)
        response = StreamedResponse(request, self._heads, EXPORT_FIELDS)
        self._running += 1
        try:
            with trio.move_on_after(EXPORT_TIMEOUT_SECONDS):  # then the last piece is missing, which the client notices
                if not await self._accounts.export(identity, round(time.time() * 1000), response.write):
                    return problem(USER_DELETED, request.request_id)
                await response.end()
        finally:
            self._running -= 1
        return None

    async def erase(self, request: Request) -> Response:
        """Delete one's own account, with everything that is stored about it."""
        identity = self._bearer.require(request)
        if isinstance(identity, Refusal):
            return problem(identity, request.request_id)
        body: Erasure | Refusal = Erasure()
        if request.body:
            body = json_body.read(request, _erasure)
        if isinstance(body, Refusal):
            return problem(body, request.request_id)
        refused = await self._accounts.erase(identity, body.password, Client(self._addresses.client(request)))
        return no_content() if refused is None else problem(refused, request.request_id)
