"""The one catalogue of what can be refused and what can fail.

A refusal is an expected outcome, so it is a value: operations return it, the web writes it as problem+json. Exceptions
are for the rest: a store out of reach, a start that cannot go on, a bug.

ScoreboardError
├── SettingsError       a setting is wrong; the message is one line that names the key (exit 2)
├── StartError          the start cannot go on for another reason; one line (exit 2)
└── StorageUnavailable  PostgreSQL or Redis can't be used, and its `condition` says in which way
"""

from enum import StrEnum
from typing import Literal

import msgspec


class Code(StrEnum):
    """Error codes, as clients see them."""

    INVALID_ACTION = "INVALID_ACTION"
    INVALID_REQUEST = "INVALID_REQUEST"
    UNAUTHORIZED = "UNAUTHORIZED"
    INVALID_SIGNATURE = "INVALID_SIGNATURE"
    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    REQUEST_TIMEOUT = "REQUEST_TIMEOUT"
    CONFLICT = "CONFLICT"
    DUPLICATE_ACTION = "DUPLICATE_ACTION"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    UPGRADE_REQUIRED = "UPGRADE_REQUIRED"
    RATE_LIMITED = "RATE_LIMITED"
    HEADERS_TOO_LARGE = "HEADERS_TOO_LARGE"
    INTERNAL = "INTERNAL"
    SERVICE_UNAVAILABLE = "SERVICE_UNAVAILABLE"


STATUS: dict[Code, int] = {
    Code.INVALID_ACTION: 400,
    Code.INVALID_REQUEST: 400,
    Code.UNAUTHORIZED: 401,
    Code.INVALID_SIGNATURE: 403,
    Code.FORBIDDEN: 403,
    Code.NOT_FOUND: 404,
    Code.METHOD_NOT_ALLOWED: 405,
    Code.REQUEST_TIMEOUT: 408,
    Code.CONFLICT: 409,
    Code.DUPLICATE_ACTION: 409,
    Code.PAYLOAD_TOO_LARGE: 413,
    Code.UNSUPPORTED_MEDIA_TYPE: 415,
    Code.UPGRADE_REQUIRED: 426,
    Code.RATE_LIMITED: 429,
    Code.HEADERS_TOO_LARGE: 431,
    Code.INTERNAL: 500,
    Code.SERVICE_UNAVAILABLE: 503,
}

TITLE: dict[Code, str] = {
    Code.INVALID_ACTION: "The action is not valid",
    Code.INVALID_REQUEST: "The request is not valid",
    Code.UNAUTHORIZED: "Not logged in",
    Code.INVALID_SIGNATURE: "The signature does not match",
    Code.FORBIDDEN: "Not allowed",
    Code.NOT_FOUND: "Not found",
    Code.METHOD_NOT_ALLOWED: "Method not allowed",
    Code.REQUEST_TIMEOUT: "The request took too long to arrive",
    Code.CONFLICT: "Already taken",
    Code.DUPLICATE_ACTION: "The action was processed before",
    Code.PAYLOAD_TOO_LARGE: "The body is too large",
    Code.UNSUPPORTED_MEDIA_TYPE: "The body must be JSON",
    Code.UPGRADE_REQUIRED: "This needs a WebSocket",
    Code.RATE_LIMITED: "Too many requests",
    Code.HEADERS_TOO_LARGE: "The request head is too large",
    Code.INTERNAL: "Something went wrong here",
    Code.SERVICE_UNAVAILABLE: "Temporarily out of service",
}


class LimitLayer(StrEnum):
    """Which limit refused a request: `layer` of a 429 answer, and of the error event of a live connection."""

    IP = "ip"  # requests or connections of one address, on one node
    LOGIN = "login"  # log-ins and password changes, of an address or to an account
    USER = "user"  # actions, changes of the profile or connections of one user
    COOLDOWN = "cooldown"  # one user's actions of one type
    SERVER_KEY = "server_key"  # requests of one server key, on one node
    DAILY = "daily"  # what one user's actions of one type give in a day


class FieldError(msgspec.Struct, frozen=True):
    """What is wrong with one field of a request."""

    field: str
    message: str


class Refusal(msgspec.Struct, frozen=True):
    """An expected outcome that is no success, in the client's terms, before it is JSON."""

    code: Code
    detail: str
    errors: tuple[FieldError, ...] = ()
    retry_after: int | None = None  # seconds, at least 1
    layer: LimitLayer | None = None  # of RATE_LIMITED


def invalid_request(field: str, message: str) -> Refusal:
    """400 because of one field of a body or of a query."""
    return Refusal(Code.INVALID_REQUEST, f"{field} {message}", (FieldError(field, message),))


def rate_limited(layer: LimitLayer, what: str, seconds: int, *, names_wait: bool = True) -> Refusal:
    """429 of a layer. `what` is the sentence that names the limit; another try is worth making after `seconds`.

    `names_wait`: the detail repeats the wait, besides Retry-After.
    """
    detail = f"{what} Next in {seconds} s." if names_wait else what
    return Refusal(Code.RATE_LIMITED, detail, retry_after=seconds, layer=layer)


# Refusals of more than one place.
NOT_FOUND = Refusal(Code.NOT_FOUND, "There is nothing at this path.")
METHOD_NOT_ALLOWED = Refusal(Code.METHOD_NOT_ALLOWED, "This path is there, but not for this method.")
UNAUTHORIZED = Refusal(Code.UNAUTHORIZED, "A valid access token is needed.")
ORIGIN_NOT_ALLOWED = Refusal(Code.FORBIDDEN, "Pages of this origin are not allowed here.")

Store = Literal["postgresql", "redis"]


class ScoreboardError(Exception):
    """Root of everything this package raises on purpose."""


class SettingsError(ScoreboardError):
    """A setting is unknown, bad or missing; the message is one line that names the key."""


class StartError(ScoreboardError):
    """The process cannot start or go on; the message is one line that says why and what to do."""


class StoreCondition(StrEnum):
    """The condition of a store now, or when a call failed."""

    UP = "up"  # reads and writes; never the condition of a failure
    DOWN = "down"  # out of reach, no answer, starting, without its tables, or it refuses our role
    READ_ONLY = "read_only"  # it answers reads and refuses writes: a replica, or set to read-only
    FULL = "full"  # it answers reads and has no room for a write
    BUSY = "busy"  # it works, but not for this call: a lock, a cancelled statement, no free connection


class StorageUnavailable(ScoreboardError):
    """A store refused a call for a reason of its own, did not answer in time, or not at all.

    After DOWN the effect of the call is unknown. In the other conditions the store refused, so there was no effect.
    """

    def __init__(self, store: Store, why: str, condition: StoreCondition = StoreCondition.DOWN) -> None:
        super().__init__(f"{store}: {why}")
        self.store: Store = store
        self.why = why
        self.condition = condition
