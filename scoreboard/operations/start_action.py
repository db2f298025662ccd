"""Starts an action of a type that wants a start: the server notes when it began.

An action of that type names its start, and is worth something only once and within the time that the type allows
(storage.postgres.conditions).
"""

from uuid import UUID

from scoreboard.domain.errors import Refusal, invalid_request
from scoreboard.domain.scoring import Rules
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres import starts
from scoreboard.storage.postgres.starts import Start

NOT_STARTED = invalid_request("actionType", "names no action type that needs a start")


async def start_action(stores: Stores, rules: Rules, user: UUID, action_type: str) -> Start | Refusal:
    """A new start for the user. A Refusal for a type that has none, and when the user has started too many.

    After a cancellation there may be a start that nobody uses. Raises StorageUnavailable.
    """
    rule = rules.get(action_type)
    if rule is None or rule.started is None:
        return NOT_STARTED
    return await starts.make(stores, user, action_type, rule.started.expires)
