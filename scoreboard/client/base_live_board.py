"""The part of `LiveBoard` that both clients share, on any loop.

Tested in tests/client/test_live.py.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, TypeVar

from scoreboard.client.addresses import ServerAddress
from scoreboard.client.base_session import BaseSession
from scoreboard.client.exchanges import Outcome
from scoreboard.client.following import BoardState, Event
from scoreboard.client.subscription import SubscriptionState

SessionT = TypeVar("SessionT", bound=BaseSession)


class BaseLiveBoard(BoardState, Generic[SessionT]):  # its docstring is BoardState's
    def __init__(
        self,
        address: ServerAddress,
        proxy: str | None,
        subscription: SubscriptionState,
        token: str | None,
        session: SessionT | None,
        *,
        event: Callable[[], Event],
        checkpoint: Callable[[], Awaitable[object]],
    ) -> None:
        """`session` wins over `token`. `event` and `checkpoint` are the loop's."""
        can_refresh = session is not None and bool(session.credentials.refreshToken)
        super().__init__(subscription, can_refresh=can_refresh, event=event, checkpoint=checkpoint)
        self._address, self._proxy, self._token, self._session = address, proxy, token, session

    async def submit(
        self, action_type: str, metadata: Mapping[str, Any] | None = None, *, action_id: str | None = None
    ) -> Outcome:
        """`Session.submit` of the session that the board was connected with; RuntimeError without one."""
        if self._session is None:
            raise RuntimeError("a board without a session is read-only: connect(url, session=…)")
        return await self._session.submit(action_type, metadata, action_id=action_id)
