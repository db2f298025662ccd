"""Change a profile: the name, the picture. Every board shows it within a second.

Tested in tests/operations/test_names.py.
"""

from uuid import UUID

from scoreboard.domain import account_rules, names
from scoreboard.domain.errors import FieldError, Refusal
from scoreboard.domain.outcomes import USER_DELETED
from scoreboard.drivers.stores import Stores
from scoreboard.operations.password_rules import invalid
from scoreboard.storage.postgres import users
from scoreboard.storage.postgres.users import Changed, Profile
from scoreboard.storage.profiles import Profiles


async def change_profile(
    stores: Stores,
    profiles: Profiles,
    user: UUID,
    username: str | None,
    avatar_url: str | None,
    *,
    set_avatar: bool,
    own_host: str,
    per_hour: int | None,
) -> Profile | Refusal:
    """Changes the name unless it is None, and the picture if `set_avatar` (None removes it).

    `own_host`: a picture's address must not have this host. `per_hour`: how often the user may change the profile; 0:
    no limit; None: nor a limit on names that the user gives up. A change to the same values does not count. Raises
    StorageUnavailable.
    """
    name = None if username is None else account_rules.username(username)
    if username is not None and name != username:  # a name from before today's rules stays as it is
        present = await users.profile(stores, user)
        if present is not None and present.username == names.nfc(username):
            name = present.username
    picture = None if avatar_url is None else account_rules.avatar_url(avatar_url, own_host)
    if errors := [value for value in (name, picture) if isinstance(value, FieldError)]:
        return invalid(errors)
    assert not isinstance(name, FieldError)
    assert not isinstance(picture, FieldError)
    changed = await users.change_profile(stores, user, name, picture, set_avatar=set_avatar, per_hour=per_hour)
    if not isinstance(changed, Changed):
        return changed or USER_DELETED
    profile = changed.profile
    if changed.is_new:
        await profiles.write_through(profile.user, profile.username, profile.avatar_url)
    return profile
