"""Accounts for the operator: find one by id, address or name; delete one from every board.

Called by `scoreboard users …`, and by no route. Changes of an account are in operations.accounts.
Tested by tests/cli/test_users.py.
"""

from collections.abc import Awaitable, Callable
from uuid import UUID

import trio

from scoreboard.domain.boards import BOARDS
from scoreboard.domain.errors import Code, Refusal, StorageUnavailable
from scoreboard.drivers.stores import Stores
from scoreboard.operations.accounts import Accounts
from scoreboard.storage.postgres import users
from scoreboard.storage.postgres.users import Profile

BOARD_SECONDS = 3.0  # for the boards to lose a deleted user; the projector needs half a second
BOARD_INTERVAL_SECONDS = 0.2  # between two checks of the boards


def no_such_user(who: str) -> Refusal:
    """The refusal for a user that does not exist."""
    return Refusal(Code.NOT_FOUND, f"There is no user {who}.")


async def find_user(stores: Stores, who: str) -> Profile | Refusal:
    """The user with this id, e-mail address (it has an @) or name. Address and name are looked up as at a log-in."""
    try:
        user = UUID(who.strip())
    except ValueError:
        account = await users.find(stores, who)
        if account is None:
            return no_such_user(who)
        user = account.user
    return await users.profile(stores, user) or no_such_user(who)


async def delete_user(
    stores: Stores, accounts: Accounts, user: Profile, repair_boards: Callable[[], Awaitable[object]]
) -> bool | Refusal:
    """Deletes all data of the user. True: no board has the user any more. False: Redis can't be reached, or the boards
    were not repaired within BOARD_SECONDS; a node repairs them later.

    `repair_boards` makes the projectors compare the stores once, and repair. A running node does the same at the same
    time, without harm. Raises StorageUnavailable when PostgreSQL can't be used.
    """
    if not await accounts.delete(user):
        return no_such_user(user.username)
    with trio.move_on_after(BOARD_SECONDS):
        while True:
            try:
                if not await _is_on_a_board(stores, user.user):
                    await stores.command("UNLINK", stores.namespace.profile(user.user))
                    return True
            except StorageUnavailable:
                return False
            await repair_boards()
            await trio.sleep(BOARD_INTERVAL_SECONDS)
    return False


async def _is_on_a_board(stores: Stores, user: UUID) -> bool:
    for board in BOARDS:
        if await stores.command("ZSCORE", stores.namespace.board(board).totals, str(user)) is not None:
            return True
    return False
