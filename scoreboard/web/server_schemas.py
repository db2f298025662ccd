"""The types of responses to game servers, for the OpenAPI document (web.openapi).

Tested in tests/web/test_openapi.py.
"""

from typing import Any

import msgspec


class BulkOutcome(msgspec.Struct, frozen=True):
    """What `POST /scores/action` would answer to the action. `data`: its outcome, also that of the first try when it
    was recorded before (409) and of an action that waits for a decision (202). `code` and `detail`: why it does not
    count."""

    status: int
    data: Any = msgspec.UNSET
    code: str | msgspec.UnsetType = msgspec.UNSET
    detail: str | msgspec.UnsetType = msgspec.UNSET


class BulkOutcomes(msgspec.Struct):
    """One outcome for each action, in their order."""

    outcomes: list[BulkOutcome]


class BulkAnswer(msgspec.Struct):
    """Each action was decided by itself."""

    success: bool
    data: BulkOutcomes


class ServerUser(msgspec.Struct):
    """A user whom the game's server knows by `externalId`. `username`: the name that the user has now."""

    userId: str
    externalId: str
    username: str


class ServerUserAnswer(msgspec.Struct):
    """The user is there."""

    success: bool
    data: ServerUser
