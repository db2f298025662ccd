"""What the transports ask of the rest of the node: one object for each, with named methods.

Live imports neither operations nor web, so a Protocol names what it calls there. The composition root (`app.live`)
passes the objects in.

Tested in tests/live/transports/test_conversation.py.
"""

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from scoreboard.domain.errors import Refusal
from scoreboard.http.request import Request, Response
from scoreboard.live.admission import Admission
from scoreboard.live.batcher import Batcher
from scoreboard.live.hub import Hub
from scoreboard.storage.board_cache import Standing

# ---- of operations --------------------------------------------------------------------------------------------------


class Identity(Protocol):
    """The user and the session of a valid token: operations.authenticator.Identity."""

    @property
    def user(self) -> UUID: ...
    @property
    def sid(self) -> UUID: ...
    @property
    def expires(self) -> float: ...  # Unix seconds


class Authenticator(Protocol):
    """operations.authenticator.Authenticator."""

    def authenticate(self, token: str) -> Identity | None:
        """The identity that the token proves; None when it is not valid."""

    def is_revoked(self, sid: UUID) -> bool:
        """Whether the session was ended."""

    def mark_revoked(self, sid: UUID) -> None:
        """The session was ended, on whatever node."""


class Standings(Protocol):
    """operations.read_leaderboard.Leaderboard."""

    async def standing(self, user: UUID) -> Standing:
        """A user's exact score and rank. Raises StorageUnavailable."""


class Clock(Protocol):
    """The stores' clock, as tokens are judged by it."""

    def now(self) -> float:
        """Unix seconds."""


# ---- of web ---------------------------------------------------------------------------------------------------------


class OriginPolicy(Protocol):
    """web.cors.Origins."""

    def allows(self, request: Request) -> bool:
        """Whether the page that sent the request may connect."""


class AddressKeys(Protocol):
    """web.client_address.Addresses."""

    def rate_limit_key(self, request: Request) -> str:
        """The key under which the request's client is counted."""


class BearerTokens(Protocol):
    """web.authorization.Bearer."""

    def identify(self, request: Request) -> Identity | Refusal | None:
        """The identity that the Authorization field proves; None without the field."""


class ResponseHeads(Protocol):
    """web.headers.ResponseHeaders."""

    def write(self, request: Request, status: int, fields: bytes, length: int | None) -> bytes:
        """The whole head with its blank line."""


class Problems(Protocol):
    """The module web.problems."""

    def problem(self, refusal: Refusal, request_id: bytes) -> Response:
        """The answer to a request that is refused."""


# ---- what is passed in ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LiveDependencies:
    """For every connection the same."""

    hub: Hub
    admission: Admission
    batcher: Batcher
    authenticator: Authenticator
    standings: Standings
    clock: Clock


@dataclass(frozen=True, slots=True)
class WebDependencies:
    """How the web reads a request and answers one that is refused."""

    origins: OriginPolicy
    addresses: AddressKeys
    bearer: BearerTokens
    heads: ResponseHeads
    problems: Problems
