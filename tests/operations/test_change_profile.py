"""Profiles: what a change stores and announces. On a real PostgreSQL."""

from scoreboard.domain.errors import Code, Refusal
from tests.operations.people import (
    PASSWORD,
    code,
    database_url,
    fields,
    node,
)

__all__ = ["database_url"]  # the module's own fixture


async def test_a_profile_change_is_stored_and_announced(database_url: str, redis_url: str) -> None:
    """Name and picture change independently, null removes the picture, and the boards are notified each time."""
    async with node(database_url, redis_url) as one:
        given = await one.register("Ada", avatar_url="https://example.org/a.png")
        identity = one.sessions.authenticate(given.accessToken)
        assert identity is not None
        await one.accounts.change_profile(identity, username="Lovelace")
        await one.accounts.change_profile(identity, avatar_url="https://example.org/b.png", set_avatar=True)
        changed = await one.accounts.change_profile(identity, set_avatar=True)
        user = identity.user
        assert one.changed == [
            (user, "Lovelace", "https://example.org/a.png"),
            (user, "Lovelace", "https://example.org/b.png"),
            (user, "Lovelace", None),
        ]
        assert changed == await one.accounts.profile(identity)


async def test_a_profile_that_stays_the_same_is_not_announced(database_url: str, redis_url: str) -> None:
    """The same name and picture again, or no picture where there is none: the answer is the profile, and no board reads
    its names anew."""
    async with node(database_url, redis_url) as one:
        given = await one.register("Ada")
        identity = one.sessions.authenticate(given.accessToken)
        assert identity is not None
        for unchanged in ({"username": "Ada"}, {"set_avatar": True}, {}):
            outcome = await one.accounts.change_profile(identity, **unchanged)
            assert outcome == await one.accounts.profile(identity)
        assert one.changed == []
        await one.accounts.change_profile(
            identity, username="Ada", avatar_url="https://example.org/a.png", set_avatar=True
        )
        await one.accounts.change_profile(
            identity, username="Ada", avatar_url="https://example.org/a.png", set_avatar=True
        )
        assert one.changed == [(identity.user, "Ada", "https://example.org/a.png")]


async def test_a_profile_change_keeps_the_rules(database_url: str, redis_url: str) -> None:
    """A taken or forbidden name changes and notifies nothing; the user's own name in another case is free."""
    async with node(database_url, redis_url) as one:
        given = await one.register("Ada")
        await one.register("Grace")
        identity = one.sessions.authenticate(given.accessToken)
        assert identity is not None
        assert fields(await one.accounts.change_profile(identity, username="GRACE")) == {"username"}
        assert fields(
            await one.accounts.change_profile(identity, username="a@b", avatar_url="ftp://x", set_avatar=True)
        ) == {
            "username",
            "avatarUrl",
        }
        assert one.changed == []
        assert not isinstance(await one.accounts.change_profile(identity, username="ADA"), Refusal)


async def test_no_picture_comes_from_this_server(database_url: str, redis_url: str) -> None:
    """Fetching it would be a request to ourselves."""
    async with node(database_url, redis_url, own_host="board.example") as one:
        given = await one.register("Ada")
        identity = one.sessions.authenticate(given.accessToken)
        assert identity is not None
        url = "https://board.example/avatars/x"
        assert fields(await one.accounts.change_profile(identity, avatar_url=url, set_avatar=True)) == {"avatarUrl"}
        assert fields(await one.accounts.register("Grace", "grace@example.org", PASSWORD, url)) == {"avatarUrl"}


async def test_a_deleted_users_token_finds_nobody(database_url: str, redis_url: str) -> None:
    """401, and the refresh token died with the user."""
    async with node(database_url, redis_url) as one:
        given = await one.register()
        identity = one.sessions.authenticate(given.accessToken)
        assert identity is not None
        await one.stores.execute("DELETE FROM users")
        assert code(await one.accounts.profile(identity)) is Code.UNAUTHORIZED
        assert code(await one.accounts.change_profile(identity, username="Other")) is Code.UNAUTHORIZED
        assert code(await one.accounts.refresh_session(given.refreshToken)) is Code.UNAUTHORIZED
