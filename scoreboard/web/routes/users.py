"""One's own account: read it, change it, change its password.

Tested in tests/web/routes/test_auth.py and test_password_change.py.
"""

from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from scoreboard.domain.account_rules import MAX_AVATAR_URL_LENGTH, MAX_PASSWORD_LENGTH, MAX_RAW_USERNAME_LENGTH
from scoreboard.domain.boards import rfc3339
from scoreboard.domain.errors import Refusal
from scoreboard.domain.paths import PASSWORD_PATH, PROFILE_PATH
from scoreboard.http.request import Request, Response
from scoreboard.operations.accounts import Accounts
from scoreboard.operations.login_admission import Client
from scoreboard.storage.postgres.users import Profile
from scoreboard.web import json_body
from scoreboard.web.account_schemas import Me, MeAnswer
from scoreboard.web.authorization import Bearer
from scoreboard.web.client_address import Addresses
from scoreboard.web.problems import problem
from scoreboard.web.responses import no_content, success
from scoreboard.web.route import Route
from scoreboard.web.schemas import NoContent


class ProfileChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be changed; null removes the picture."""

    username: Annotated[str, Meta(max_length=MAX_RAW_USERNAME_LENGTH)] | UnsetType = UNSET
    avatarUrl: Annotated[str, Meta(max_length=MAX_AVATAR_URL_LENGTH)] | UnsetType | None = UNSET


class PasswordChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Both passwords: the new one takes the place of the current one."""

    currentPassword: Annotated[str, Meta(max_length=MAX_PASSWORD_LENGTH)]
    newPassword: Annotated[str, Meta(max_length=MAX_PASSWORD_LENGTH)]

    def __repr__(self) -> str:
        return "PasswordChange()"


_change = msgspec.json.Decoder(ProfileChange)
_password_change = msgspec.json.Decoder(PasswordChange)


class UserRoutes:
    """The routes of `/users/me`."""

    def __init__(self, accounts: Accounts, bearer: Bearer, addresses: Addresses) -> None:
        self._accounts, self._bearer, self._addresses = accounts, bearer, addresses

    def routes(self) -> Iterator[Route]:
        """All three."""
        yield Route(
            method="GET",
            path=PROFILE_PATH,
            handler=self.read,
            name="me",
            auth="required",
            response_type=MeAnswer,
            errors=(401,),
        )
        yield Route(
            method="PATCH",
            path=PROFILE_PATH,
            handler=self.change,
            name="change_me",
            auth="required",
            request_type=ProfileChange,
            response_type=MeAnswer,
            errors=(401, 409, 415),
        )
        yield Route(
            method="POST",
            path=PASSWORD_PATH,
            handler=self.change_password,
            name="change_password",
            auth="required",
            request_type=PasswordChange,
            response_type=NoContent,
            status=204,
            errors=(401, 415),
        )

    async def read(self, request: Request) -> Response:
        """Read one's own profile."""
        identity = self._bearer.require(request)
        if isinstance(identity, Refusal):
            return problem(identity, request.request_id)
        return _profile_response(request, await self._accounts.profile(identity))

    async def change(self, request: Request) -> Response:
        """Change one's own profile; every board shows it within a second."""
        identity = self._bearer.require(request)
        if isinstance(identity, Refusal):
            return problem(identity, request.request_id)
        body = json_body.read(request, _change)
        if isinstance(body, Refusal):
            return problem(body, request.request_id)
        changed = await self._accounts.change_profile(
            identity,
            username=None if body.username is UNSET else body.username,
            avatar_url=None if body.avatarUrl is UNSET else body.avatarUrl,
            set_avatar=body.avatarUrl is not UNSET,
        )
        return _profile_response(request, changed)

    async def change_password(self, request: Request) -> Response:
        """Change one's own password; all other sessions of the user end."""
        identity = self._bearer.require(request)
        if isinstance(identity, Refusal):
            return problem(identity, request.request_id)
        body = json_body.read(request, _password_change)
        if isinstance(body, Refusal):
            return problem(body, request.request_id)
        client = Client(self._addresses.client(request))
        refused = await self._accounts.change_password(identity, body.currentPassword, body.newPassword, client)
        return no_content() if refused is None else problem(refused, request.request_id)


def _profile_response(request: Request, outcome: Profile | Refusal) -> Response:
    if isinstance(outcome, Refusal):
        return problem(outcome, request.request_id)
    me = Me(
        str(outcome.user),
        outcome.username,
        outcome.email,
        outcome.avatar_url,
        rfc3339(outcome.created_ms),
        outcome.is_guest,
    )
    return success(me)
