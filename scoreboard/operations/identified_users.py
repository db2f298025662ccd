"""Finds the user of an outside identity, and creates one at first sight.

Used by log-ins without a password: guests, outside issuers, server keys. The caller has proven the identity, and opens
the session by Sessions.open_identified.

Tested in tests/operations/test_identified_users.py.
"""

import secrets

from scoreboard.domain.errors import Refusal
from scoreboard.domain.identities import ExternalIdentity, usernames_like
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres import identities
from scoreboard.storage.postgres.identities import IdentifiedUser
from scoreboard.storage.postgres.users import USERNAME_TAKEN


async def find_or_create(
    stores: Stores, identity: ExternalIdentity, wanted: str | None = None, avatar_url: str | None = None
) -> IdentifiedUser | Refusal:
    """The identity's user, who is created when there is none. Two nodes that do so at once get the same user.

    `wanted`: the name for a new user, any text. One that is taken or against the rules is changed, or a neutral one is
    made (domain.identities). `avatar_url` must have passed account_rules.avatar_url. The Refusal USERNAME_TAKEN: all
    names that were tried are in use. Raises StorageUnavailable; after a cancellation the user may be there.
    """
    found = await identities.find(stores, identity)
    if found is not None:
        return found
    for username in usernames_like(wanted, secrets.randbelow):
        outcome = await identities.create(stores, identity, username, avatar_url)
        if isinstance(outcome, IdentifiedUser):
            return outcome
    return USERNAME_TAKEN
