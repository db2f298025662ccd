"""Roles: their order, their names, and what each may not do."""

import pytest

from scoreboard.domain.errors import Code
from scoreboard.domain.roles import (
    LAST_ADMIN,
    NO_ROLE,
    OWN_ROLE,
    Role,
    missing_role,
    read_role,
    refuse_moderation,
    refuse_own_change,
)


def test_each_role_includes_those_before_it() -> None:
    assert [[role.includes(other) for other in Role] for role in Role] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


def test_names_of_roles() -> None:
    """`none` and no value are no role; what is no name is an error."""
    assert [read_role(name) for name in (None, NO_ROLE, "viewer", "moderator", "admin")] == [None, None, *Role]
    for name in ("", "Admin", "root"):
        with pytest.raises(ValueError, match="not a valid Role"):
            read_role(name)
    assert missing_role(Role.MODERATOR).detail == "This needs the role moderator."


@pytest.mark.parametrize("before", [None, *Role])
@pytest.mark.parametrize("after", [None, *Role])
def test_nobody_raises_himself(before: Role | None, after: Role | None) -> None:
    """Every pair of roles, with another admin beside him: staying and falling is allowed."""
    rank = [None, *Role].index
    refused = refuse_own_change(before, after, admins=2)
    assert (refused is OWN_ROLE) == (rank(after) > rank(before))
    assert refused in {None, OWN_ROLE}


@pytest.mark.parametrize("after", [None, Role.VIEWER, Role.MODERATOR])
def test_the_last_admin_stays(after: Role | None) -> None:
    assert refuse_own_change(Role.ADMIN, after, admins=1) is LAST_ADMIN
    assert refuse_own_change(Role.MODERATOR, None, admins=1) is None


def test_a_moderator_decides_about_all_but_admins() -> None:
    for subject in (None, Role.VIEWER, Role.MODERATOR):
        assert refuse_moderation(Role.MODERATOR, subject) is None
    refused = refuse_moderation(Role.MODERATOR, Role.ADMIN)
    assert refused is not None
    assert refused.code is Code.FORBIDDEN
    assert refuse_moderation(Role.ADMIN, Role.ADMIN) is None
