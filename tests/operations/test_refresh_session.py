"""Refresh a session, log out, and what a stolen refresh token is worth. On a real PostgreSQL."""

from datetime import timedelta
from uuid import UUID

import trio

from scoreboard.domain.errors import Code
from scoreboard.domain.sessions import REFRESH_GRACE_SECONDS
from scoreboard.operations.refresh_session import MAX_TOKENS_TRIED
from scoreboard.operations.sessions import SESSION_ENDED, LoggedIn
from scoreboard.security import refresh_tokens
from tests.operations.people import (
    MASTERS,
    PASSWORD,
    Node,
    code,
    database_url,
    logged_in,
    node,
    refreshed,
)

__all__ = ["database_url"]  # the module's own fixture


async def test_a_refresh_gives_a_new_pair_and_the_same_action_secret(database_url: str, redis_url: str) -> None:
    """The session and its secret stay, so an action in flight is still signed rightly."""
    async with node(database_url, redis_url) as one:
        first = await one.register()
        second = await refreshed(one, first.refreshToken)
        third = await refreshed(one, second.refreshToken)
        assert len({first.refreshToken, second.refreshToken, third.refreshToken}) == 3
        assert len({first.accessToken, second.accessToken, third.accessToken}) == 3
        assert first.actionSecret == second.actionSecret == third.actionSecret
        identities = [one.sessions.authenticate(given.accessToken) for given in (first, second, third)]
        assert len({identity.sid for identity in identities if identity}) == 1
        assert third.username == "Ada"


async def test_two_refreshes_at_once_are_given_the_same_successor(database_url: str, redis_url: str) -> None:
    """Two tabs, on two nodes: both go on with one token, and it works."""
    async with node(database_url, redis_url) as one:
        other = Node(one.stores)
        first = await one.register()
        given: list[LoggedIn] = []

        async def refresh(someone: Node) -> None:
            given.append(await refreshed(someone, first.refreshToken))

        async with trio.open_nursery() as nursery:
            for someone in (one, other, one, other):
                nursery.start_soon(refresh, someone)
        (successor,) = {answer.refreshToken for answer in given}
        await refreshed(other, successor)


async def test_a_lost_answer_can_be_asked_for_again_within_the_grace(database_url: str, redis_url: str) -> None:
    """Afterwards the same token is a spent one like any other: the session ends."""
    async with node(database_url, redis_url) as one:
        first = await one.register()
        second = await refreshed(one, first.refreshToken)
        await one.stores.execute(
            "UPDATE sessions SET rotated_at = now() - make_interval(secs => $1)", float(REFRESH_GRACE_SECONDS - 1)
        )
        assert (await refreshed(one, first.refreshToken)).refreshToken == second.refreshToken
        await one.stores.execute(
            "UPDATE sessions SET rotated_at = now() - make_interval(secs => $1)", float(REFRESH_GRACE_SECONDS + 1)
        )
        assert code(await one.accounts.refresh_session(first.refreshToken)) is Code.UNAUTHORIZED
        assert code(await one.accounts.refresh_session(second.refreshToken)) is Code.UNAUTHORIZED


async def test_reuse_of_an_older_token_ends_the_session_for_everybody(database_url: str, redis_url: str) -> None:
    """A reused token ends the session: the thief's and the owner's tokens are invalid, access tokens included."""
    async with node(database_url, redis_url) as one:
        first = await one.register()
        second = await refreshed(one, first.refreshToken)
        third = await refreshed(one, second.refreshToken)
        assert code(await one.accounts.refresh_session(first.refreshToken)) is Code.UNAUTHORIZED
        assert code(await one.accounts.refresh_session(third.refreshToken)) is Code.UNAUTHORIZED
        assert one.sessions.authenticate(third.accessToken) is None
        assert len(one.revoked) == 1
        assert isinstance(await one.accounts.log_in("Ada", PASSWORD), LoggedIn)


async def test_a_planted_live_token_is_taken_for_nobody_elses_session(database_url: str, redis_url: str) -> None:
    """A sibling domain plants tokens of its own account, before or after the owner's, one or a crowd: only those of the
    named user count."""
    async with node(database_url, redis_url) as one:
        eve, ada = await one.register("Eve"), await one.register("Ada")
        planted = [eve.refreshToken, *[(await logged_in(one, "Eve")).refreshToken for _ in range(MAX_TOKENS_TRIED)]]
        user, spent = UUID(ada.userId), []
        for crowd in (planted[:1], planted):
            for is_first in (True, False):
                spent.append(ada.refreshToken)
                answer = await one.accounts.refresh_session(
                    *(crowd if is_first else ()), ada.refreshToken, *crowd, user=user
                )
                assert isinstance(answer, LoggedIn)
                assert answer.userId == ada.userId
                ada = answer
        lost = await one.accounts.refresh_session(eve.refreshToken, spent[-1], user=user)
        assert isinstance(lost, LoggedIn)
        assert lost.refreshToken == ada.refreshToken
        assert await one.accounts.refresh_session(eve.refreshToken, user=user) == SESSION_ENDED
        assert await one.accounts.refresh_session(*planted, user=UUID(int=1)) == SESSION_ENDED
        eve = await refreshed(one, eve.refreshToken)
        assert await one.accounts.refresh_session(planted[0], user=user) == SESSION_ENDED  # spent just now
        assert one.revoked == []
        # a copy of a spent one
        assert await one.accounts.refresh_session(eve.refreshToken, spent[0], user=user) == SESSION_ENDED
        assert one.revoked == [refresh_tokens.session_of(ada.refreshToken)]
        assert await one.accounts.refresh_session(eve.refreshToken, ada.refreshToken, user=user) == SESSION_ENDED
        await refreshed(one, eve.refreshToken)


async def test_live_tokens_of_several_users_log_in_nobody(database_url: str, redis_url: str) -> None:
    """Nobody knows whose browser it is, when it does not say so: none is spent. Two of one user are that user's."""
    async with node(database_url, redis_url) as one:
        eve, ada = await one.register("Eve"), await one.register("Ada")
        another = await logged_in(one, "Ada")
        for pair in ((eve, ada), (ada, eve)):
            assert await one.accounts.refresh_session(*(each.refreshToken for each in pair)) == SESSION_ENDED
        assert isinstance(await one.accounts.refresh_session(another.refreshToken, ada.refreshToken), LoggedIn)
        later = await refreshed(one, ada.refreshToken)
        assert await one.accounts.refresh_session(eve.refreshToken, ada.refreshToken) == SESSION_ENDED  # spent just now
        identity = one.sessions.authenticate(later.accessToken)
        assert identity is not None
        await one.accounts.log_out(identity)
        answer = await one.accounts.refresh_session(later.refreshToken, eve.refreshToken)
        assert isinstance(answer, LoggedIn)
        assert answer.userId == eve.userId
        assert one.revoked == [identity.sid]


async def test_a_made_up_token_ends_nobodys_session(database_url: str, redis_url: str) -> None:
    """A token that was made without this installation's keys ends no session."""
    async with node(database_url, redis_url) as one:
        first = await one.register()
        sid = refresh_tokens.session_of(first.refreshToken)
        assert sid is not None
        forged = refresh_tokens.make(b"x" * 32, sid, b"y" * 32)
        for token in ("", "x", "\x00", "x" * 100_000, forged, refresh_tokens.make(MASTERS[2], UUID(int=1), b"y" * 32)):
            assert code(await one.accounts.refresh_session(token)) is Code.UNAUTHORIZED
        await refreshed(one, first.refreshToken)
        assert one.revoked == []


async def test_sessions_end_thirty_days_after_their_last_use(database_url: str, redis_url: str) -> None:
    """Each refresh starts the thirty days anew; afterwards the token is worth nothing."""
    async with node(database_url, redis_url) as one:
        first = await one.register()
        await one.stores.execute("UPDATE sessions SET expires_at = now() + interval '1 second'")
        second = await refreshed(one, first.refreshToken)
        left = await one.stores.fetchval("SELECT expires_at - now() FROM sessions")
        assert timedelta(days=29, hours=23) < left <= timedelta(days=30)
        await one.stores.execute("UPDATE sessions SET expires_at = now()")
        assert code(await one.accounts.refresh_session(second.refreshToken)) is Code.UNAUTHORIZED
        assert one.revoked == []


async def test_a_new_master_key_changes_the_action_secret_at_the_next_refresh(
    database_url: str, redis_url: str
) -> None:
    """Rotation: tokens of before stay good, a successor made under the old key is made again under it, both secrets are
    accepted."""
    async with node(database_url, redis_url, master_keys={1: MASTERS[1]}, current_version=1) as old:
        rotated = Node(old.stores)
        first = await old.register()
        second = await refreshed(old, first.refreshToken)
        assert (await refreshed(rotated, first.refreshToken)).refreshToken == second.refreshToken
        third = await refreshed(rotated, second.refreshToken)
        assert (second.actionKeyVersion, third.actionKeyVersion) == (1, 2)
        assert second.actionSecret != third.actionSecret
        identity = rotated.sessions.authenticate(third.accessToken)
        assert identity is not None
        assert identity.secrets == {1: second.actionSecret.encode(), 2: third.actionSecret.encode()}


async def test_logging_out_ends_one_session(database_url: str, redis_url: str) -> None:
    """Its refresh and access tokens are dead at once; another log-in of the same user goes on."""
    async with node(database_url, redis_url) as one:
        mine = await one.register()
        other = await one.accounts.log_in("Ada", PASSWORD)
        assert isinstance(other, LoggedIn)
        identity = one.sessions.authenticate(mine.accessToken)
        assert identity is not None
        await one.accounts.log_out(identity)
        assert one.sessions.authenticate(mine.accessToken) is None
        assert code(await one.accounts.refresh_session(mine.refreshToken)) is Code.UNAUTHORIZED
        assert one.revoked == [identity.sid]
        assert one.sessions.authenticate(other.accessToken) is not None
        await refreshed(one, other.refreshToken)
