"""The routes of game servers: users by external id, sessions for them, and actions in bulk. They take server keys.

Tested in tests/web/routes/test_server.py.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated
from urllib.parse import unquote_to_bytes
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from scoreboard.domain.account_rules import MAX_AVATAR_URL_LENGTH, MAX_RAW_USERNAME_LENGTH
from scoreboard.domain.bulk_actions import MAX_BULK_BODY_BYTES, BulkBody
from scoreboard.domain.errors import STATUS, FieldError, Refusal, invalid_request
from scoreboard.domain.identities import MAX_EXTERNAL_ID_LENGTH, external_id
from scoreboard.domain.outcomes import Duplicate, Held, Outcome, Recorded
from scoreboard.domain.paths import BULK_PATH, SERVER_SESSIONS_PATH, SERVER_USERS_PREFIX
from scoreboard.domain.scopes import Scope
from scoreboard.http.request import Request, Response
from scoreboard.operations.accounts import Accounts
from scoreboard.operations.submit_bulk import SubmitBulk
from scoreboard.web import json_body
from scoreboard.web.authorization import Bearer
from scoreboard.web.json_body import NOT_JSON, is_json
from scoreboard.web.problems import problem
from scoreboard.web.responses import success
from scoreboard.web.route import Route
from scoreboard.web.routes.scores import DUPLICATE, ID_REUSED, count_outcomes, held, outcome_kind, scored
from scoreboard.web.schemas import LoggedInAnswer
from scoreboard.web.server_schemas import BulkAnswer, BulkOutcome, BulkOutcomes, ServerUser, ServerUserAnswer


class ServerUserBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The user as the game's server wants it; null removes the picture."""

    username: Annotated[str, Meta(max_length=MAX_RAW_USERNAME_LENGTH)] | UnsetType = UNSET
    avatarUrl: Annotated[str, Meta(max_length=MAX_AVATAR_URL_LENGTH)] | UnsetType | None = UNSET


class ServerSessionBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose session is opened: the user of the external id, or the user with that id."""

    externalId: Annotated[str, Meta(min_length=1, max_length=MAX_EXTERNAL_ID_LENGTH)] | None = None
    userId: UUID | None = None


_user = msgspec.json.Decoder(ServerUserBody)
_session = msgspec.json.Decoder(ServerSessionBody)


# ---- pure -----------------------------------------------------------------------------------------------------------


def read_external_id(path: bytes) -> str | Refusal:
    """The external id at the end of a path, whose escapes are decoded."""
    try:
        text = unquote_to_bytes(path.removeprefix(SERVER_USERS_PREFIX.encode())).decode()
    except UnicodeDecodeError:
        return invalid_request("externalId", "must be UTF-8")
    found = external_id(text)
    return invalid_request(found.field, found.message) if isinstance(found, FieldError) else found


def bulk_outcome(outcome: Outcome) -> BulkOutcome:
    """One outcome, with the status that `POST /scores/action` would answer."""
    if isinstance(outcome, Recorded):
        return BulkOutcome(200, data=scored(outcome))
    if isinstance(outcome, Held):
        return BulkOutcome(202, data=held(outcome))
    data: object = UNSET
    if isinstance(outcome, Duplicate):
        original, outcome = outcome.original, ID_REUSED if outcome.original is None else DUPLICATE
        data = UNSET if original is None else scored(original)
    return BulkOutcome(STATUS[outcome.code], data=data, code=outcome.code, detail=outcome.detail)


# ---- routes ---------------------------------------------------------------------------------------------------------


class ServerRoutes:
    """The routes of `/server`, and `POST /scores/actions`."""

    __slots__ = ("_accounts", "_bearer", "_submit_bulk")

    def __init__(self, accounts: Accounts, submit_bulk: SubmitBulk, bearer: Bearer) -> None:
        self._accounts, self._submit_bulk, self._bearer = accounts, submit_bulk, bearer

    def routes(self) -> Iterator[Route]:
        """All three."""
        yield Route(
            method="POST",
            path=BULK_PATH,
            handler=self.submit_many,
            direct=True,
            name="submit_many",
            auth=Scope.SCORES,
            max_body_bytes=MAX_BULK_BODY_BYTES,
            request_type=BulkBody,
            response_type=BulkAnswer,
            errors=(401, 403, 415),
        )
        yield Route(
            method="PUT",
            path=f"{SERVER_USERS_PREFIX}<external_id>",
            handler=self.put_user,
            name="put_server_user",
            auth=Scope.USERS,
            request_type=ServerUserBody,
            response_type=ServerUserAnswer,
            errors=(401, 403, 404, 409, 415),
        )
        yield Route(
            method="POST",
            path=SERVER_SESSIONS_PATH,
            handler=self.open_session,
            name="open_server_session",
            auth=Scope.SESSIONS,
            request_type=ServerSessionBody,
            response_type=LoggedInAnswer,
            errors=(401, 403, 404, 415),
        )

    async def submit_many(self, request: Request) -> Response:
        """Award points for up to 500 actions of any users."""
        identity = self._bearer.require_scope(request, Scope.SCORES)
        if isinstance(identity, Refusal):
            return problem(identity, request.request_id)
        if not is_json(request):
            return problem(NOT_JSON, request.request_id)
        outcomes = await self._submit_bulk.submit(identity, request.body, request.request_id.decode())
        if isinstance(outcomes, Refusal):
            return problem(outcomes, request.request_id)
        return _bulk_response(outcomes)

    async def put_user(self, request: Request) -> Response:
        """Make the user of an external id, or change name and picture."""
        identity = self._bearer.require_scope(request, Scope.USERS)
        if isinstance(identity, Refusal):
            return problem(identity, request.request_id)
        named, body = read_external_id(request.path), json_body.read(request, _user)
        if isinstance(named, Refusal) or isinstance(body, Refusal):
            return problem(named if isinstance(named, Refusal) else body, request.request_id)  # type: ignore[arg-type]
        user = await self._accounts.put_server_user(
            named,
            username=None if body.username is UNSET else body.username,
            avatar_url=None if body.avatarUrl is UNSET else body.avatarUrl,
            set_avatar=body.avatarUrl is not UNSET,
        )
        if isinstance(user, Refusal):
            return problem(user, request.request_id)
        return success(ServerUser(str(user.user), named, user.username))

    async def open_session(self, request: Request) -> Response:
        """Open a session for a user. The refresh token is in the answer, never in a cookie."""
        identity = self._bearer.require_scope(request, Scope.SESSIONS)
        if isinstance(identity, Refusal):
            return problem(identity, request.request_id)
        body = json_body.read(request, _session)
        if isinstance(body, Refusal):
            return problem(body, request.request_id)
        if (body.userId is None) == (body.externalId is None):
            return problem(invalid_request("externalId", "or userId must be given, and not both"), request.request_id)
        opened = await self._accounts.open_server_session(body.userId, body.externalId)
        return problem(opened, request.request_id) if isinstance(opened, Refusal) else success(opened)


def _bulk_response(outcomes: Sequence[Outcome]) -> Response:
    count_outcomes(Counter(outcome_kind(outcome) for outcome in outcomes))
    return success(BulkOutcomes([bulk_outcome(outcome) for outcome in outcomes]))
