"""What proves an action: starts, evidence; and one's own actions that wait for a decision.

The action itself is submitted in web.routes.scores. Tested in tests/web/routes/test_actions.py.
"""

import re
from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import Meta

from scoreboard.domain.actions import MAX_ACTION_TYPE_LENGTH, MAX_EVIDENCE_BYTES
from scoreboard.domain.boards import rfc3339
from scoreboard.domain.errors import Refusal
from scoreboard.domain.paths import EVIDENCE_PREFIX, HELD_PATH, START_PATH
from scoreboard.domain.queries import BAD_CURSOR, page_of
from scoreboard.domain.scoring import Rules
from scoreboard.drivers.stores import Stores
from scoreboard.http.request import Request, Response
from scoreboard.operations.evidence import upload_evidence
from scoreboard.operations.start_action import start_action
from scoreboard.storage.postgres import held_actions
from scoreboard.storage.postgres.held_actions import HeldRow
from scoreboard.web import json_body
from scoreboard.web.authorization import Bearer
from scoreboard.web.problems import problem
from scoreboard.web.responses import no_content, success
from scoreboard.web.route import Route
from scoreboard.web.schemas import (
    HeldEvidence,
    NoContent,
    OwnHeldAction,
    OwnHeldActions,
    OwnHeldActionsAnswer,
    PageQuery,
    Started,
    StartedAnswer,
)

_CURSOR = re.compile(r"[1-9][0-9]{0,17}").fullmatch  # fits PostgreSQL's bigint


class StartBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is about to be done."""

    actionType: Annotated[str, Meta(min_length=1, max_length=MAX_ACTION_TYPE_LENGTH)]


_start = msgspec.json.Decoder(StartBody)


# ---- pure -----------------------------------------------------------------------------------------------------------


def _read_cursor(cursor: str) -> int | Refusal | None:
    """The id of the row after which a page begins; None for the first page."""
    if not cursor:
        return None
    return int(cursor) if _CURSOR(cursor) else BAD_CURSOR


def own_held_action(row: HeldRow) -> OwnHeldAction:
    """A held action as its user reads it: without who decided."""
    return OwnHeldAction(
        actionId=row.action_id,
        actionType=row.action_type,
        status=row.status,
        points=row.points,
        heldAt=rfc3339(row.held_ms),
        expiresAt=rfc3339(row.expires_ms),
        reason=row.reason,
        decidedAt=None if row.decided_ms is None else rfc3339(row.decided_ms),
        evidence=None
        if row.evidence_sha256 is None
        else HeldEvidence(row.evidence_sha256, row.evidence_size, row.is_uploaded),
    )


# ---- routes ---------------------------------------------------------------------------------------------------------


class ActionRoutes:
    """The routes of `/actions`, and `/users/me/held`."""

    __slots__ = ("_bearer", "_rules", "_stores")

    def __init__(self, stores: Stores, bearer: Bearer, rules: Rules) -> None:
        self._stores, self._bearer, self._rules = stores, bearer, rules

    def routes(self) -> Iterator[Route]:
        """All three."""
        yield Route(
            method="POST",
            path=START_PATH,
            handler=self.start,
            name="start_action",
            auth="required",
            request_type=StartBody,
            response_type=StartedAnswer,
            status=201,
            errors=(401, 415),
        )
        yield Route(
            method="PUT",
            path=f"{EVIDENCE_PREFIX}<sha256>",
            handler=self.upload,
            name="upload_evidence",
            auth="required",
            response_type=NoContent,
            status=204,
            errors=(401, 404),
            max_body_bytes=MAX_EVIDENCE_BYTES,
        )
        yield Route(
            method="GET",
            path=HELD_PATH,
            handler=self.held,
            name="held_actions",
            auth="required",
            query_type=PageQuery,
            response_type=OwnHeldActionsAnswer,
            errors=(401,),
        )

    async def start(self, request: Request) -> Response:
        """Begin an action of a type that needs a start."""
        identity = self._bearer.require(request)
        if isinstance(identity, Refusal):
            return problem(identity, request.request_id)
        body = json_body.read(request, _start)
        if isinstance(body, Refusal):
            return problem(body, request.request_id)
        start = await start_action(self._stores, self._rules, identity.user, body.actionType)
        if isinstance(start, Refusal):
            return problem(start, request.request_id)
        return success(Started(str(start.id), rfc3339(start.expires_ms)), status=201)

    async def upload(self, request: Request) -> Response:
        """Upload the evidence of an action, whose hash is in the path. A second upload changes nothing."""
        identity = self._bearer.require(request)
        if isinstance(identity, Refusal):
            return problem(identity, request.request_id)
        digest = request.path.removeprefix(EVIDENCE_PREFIX.encode()).decode("latin-1")
        refusal = await upload_evidence(self._stores, identity.user, digest, request.body)
        return no_content() if refusal is None else problem(refusal, request.request_id)

    async def held(self, request: Request) -> Response:
        """Read one's own actions that wait, or waited, for a decision."""
        identity = self._bearer.require(request)
        if isinstance(identity, Refusal):
            return problem(identity, request.request_id)
        page = page_of(request.query)
        if isinstance(page, Refusal):
            return problem(page, request.request_id)
        before = _read_cursor(page.cursor)
        if isinstance(before, Refusal):
            return problem(before, request.request_id)
        rows = await held_actions.of_user(self._stores, identity.user, before, page.limit + 1)
        shown = rows[: page.limit]
        following = str(shown[-1].id) if len(rows) > page.limit else None
        return success(OwnHeldActions([own_held_action(row) for row in shown], following))
