"""One's own sessions: list them, end one, log out everywhere.

An ended session is refused on this node at once and on others within two seconds; its live connections are closed.
Somebody else's session is answered as one that is not there.

Tested in tests/web/routes/test_sessions.py.
"""

from collections.abc import Iterator
from uuid import UUID

from scoreboard.domain.boards import rfc3339
from scoreboard.domain.errors import Code, Refusal, invalid_request
from scoreboard.domain.paths import SESSIONS_PATH
from scoreboard.domain.queries import BAD_CURSOR, page_of, parse_query
from scoreboard.http.request import Request, Response
from scoreboard.operations.accounts import Accounts
from scoreboard.web.account_schemas import EndSessionsQuery, OwnSession, OwnSessions, OwnSessionsAnswer
from scoreboard.web.authorization import Bearer
from scoreboard.web.problems import problem
from scoreboard.web.responses import no_content, success
from scoreboard.web.route import Route
from scoreboard.web.schemas import NoContent, PageQuery

NO_SUCH_SESSION = Refusal(Code.NOT_FOUND, "You have no such session.")
MAX_ID_LENGTH = 36  # characters of a UUID


class SessionRoutes:
    """The routes of `/users/me/sessions`."""

    def __init__(self, accounts: Accounts, bearer: Bearer) -> None:
        self._accounts, self._bearer = accounts, bearer

    def routes(self) -> Iterator[Route]:
        """All three."""
        yield Route(
            method="GET",
            path=SESSIONS_PATH,
            handler=self.read,
            name="sessions",
            auth="required",
            query_type=PageQuery,
            response_type=OwnSessionsAnswer,
            errors=(401,),
        )
        yield Route(
            method="DELETE",
            path=SESSIONS_PATH,
            handler=self.end_all,
            name="end_sessions",
            auth="required",
            query_type=EndSessionsQuery,
            response_type=NoContent,
            status=204,
            errors=(401,),
        )
        yield Route(
            method="DELETE",
            path=f"{SESSIONS_PATH}/<session>",
            handler=self.end,
            name="end_session",
            auth="required",
            response_type=NoContent,
            status=204,
            errors=(401, 404),
        )

    async def read(self, request: Request) -> Response:
        """List one's own sessions, the newest first."""
        identity = self._bearer.require(request)
        page = page_of(request.query)
        if isinstance(identity, Refusal):
            return problem(identity, request.request_id)
        if isinstance(page, Refusal):
            return problem(page, request.request_id)
        after = _uuid(page.cursor)
        if page.cursor and after is None:
            return problem(BAD_CURSOR, request.request_id)
        found = await self._accounts.live_sessions(identity, after, page.limit + 1)
        shown = [
            OwnSession(
                str(each.sid), rfc3339(each.created_ms), rfc3339(each.used_ms), each.client, each.sid == identity.sid
            )
            for each in found[: page.limit]
        ]
        return success(OwnSessions(shown, shown[-1].id if len(found) > page.limit else None))

    async def end_all(self, request: Request) -> Response:
        """Log out everywhere; with `keep=current` everywhere else."""
        identity = self._bearer.require(request)
        if isinstance(identity, Refusal):
            return problem(identity, request.request_id)
        keep = (parse_query(request.query) or {}).get("keep", [""])
        if keep not in ([""], ["current"]):
            return problem(invalid_request("keep", "must be current"), request.request_id)
        await self._accounts.end_sessions(identity, keep_current=keep == ["current"])
        return no_content()

    async def end(self, request: Request) -> Response:
        """End one of one's own sessions."""
        identity = self._bearer.require(request)
        if isinstance(identity, Refusal):
            return problem(identity, request.request_id)
        sid = _uuid(request.path.decode("latin-1").rpartition("/")[2])
        if sid is None or not await self._accounts.end_session(identity, sid):
            return problem(NO_SUCH_SESSION, request.request_id)
        return no_content()


def _uuid(text: str) -> UUID | None:
    """The id in its usual form; None for any other text."""
    try:
        found = UUID(text) if len(text) == MAX_ID_LENGTH else None
    except ValueError:
        return None
    return found if str(found) == text.lower() else None
