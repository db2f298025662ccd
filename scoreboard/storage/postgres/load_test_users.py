"""Users without a password, many at a time, for load tests and development.

Called by operations.admin.provisioning. May raise StorageUnavailable. Tested in tests/cli/test_users.py.
"""

from collections.abc import Sequence
from uuid import UUID

from scoreboard.domain.skeletons import skeletons
from scoreboard.drivers.stores import Stores

# Without credentials: these users can't log in. The command that creates them prints their tokens.
CREATE_MANY = """
WITH created AS (
    INSERT INTO users (username, email)
    SELECT username, email FROM unnest($1::text[], $2::text[]) AS given(username, email)
    ON CONFLICT DO NOTHING RETURNING id, username
)
INSERT INTO username_skeletons (skeleton, user_id, username, skeleton_count)
SELECT skeleton, id, username, number
FROM created JOIN unnest($3::text[], $4::text[], $5::smallint[]) AS given(username, skeleton, number) USING (username)
ON CONFLICT DO NOTHING"""
IDS = "SELECT username, id FROM users WHERE username = ANY($1::text[])"


async def create_many(stores: Stores, usernames: Sequence[str], emails: Sequence[str]) -> dict[str, UUID]:
    """Creates users without a password. Returns all of them by name, also those that existed already."""
    claims = [(name, skeleton, len(wanted)) for name in usernames if (wanted := skeletons(name)) for skeleton in wanted]
    given, claimed, numbers = (list(column) for column in zip(*claims, strict=True))
    await stores.execute(CREATE_MANY, list(usernames), list(emails), given, claimed, numbers)
    return {row["username"]: row["id"] for row in await stores.fetch(IDS, list(usernames))}
