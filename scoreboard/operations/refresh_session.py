"""Refresh a session: a refresh token is spent for a new pair of tokens, and a reused one ends the session (RFC 9700).

1. The tokens that have our form are kept. A sibling domain can plant cookies, so a browser may present several, a live
   one of the attacker's own account among them. Only tokens of `user` count then, the user that the page is logged in
   as. When the page does not say, tokens of different users log in nobody.
2. The first token that is live is spent, and the next one takes its place.
3. None is live: a token that was spent within REFRESH_GRACE_SECONDS gives the same next token again, since two tabs may
   refresh at once and an answer may be lost.
4. Any other spent token that we issued is a copy, and nobody knows which of the two holders is the thief. The session
   ends for both.

Tested in tests/operations/test_accounts.py.
"""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import structlog

from scoreboard.domain.errors import Refusal
from scoreboard.operations.sessions import SESSION_ENDED, LoggedIn, Sessions
from scoreboard.security import refresh_tokens
from scoreboard.storage.postgres import sessions as session_store

MAX_TOKENS_TRIED = 4  # of one request, when they are one user's or lead to nobody: each costs a query or two

log = structlog.get_logger()


class Presented(NamedTuple):
    """A refresh token of a request, and the session that it names."""

    token: str
    sid: UUID

    @property
    def digest(self) -> bytes:
        return refresh_tokens.digest(self.token)


async def refresh_session(sessions: Sessions, tokens: Sequence[str], user: UUID | None) -> LoggedIn | Refusal:
    """A new pair of tokens for the first token that is live, or was spent just now. `user`: whose tokens count; None:
    anybody's."""
    presented = [Presented(token, sid) for token in tokens if (sid := refresh_tokens.session_of(token)) is not None]
    if len(presented) > 1:
        selected = await _of_one_user(sessions, presented, user)
        if selected is None:
            return SESSION_ENDED
        presented = selected
    for each in presented:
        if (logged_in := await _rotate(sessions, each, user)) is not None:
            return logged_in
    for each in presented:
        if (logged_in := await _repeat_or_revoke(sessions, each, user)) is not None:
            return logged_in
    return SESSION_ENDED


async def _of_one_user(sessions: Sessions, presented: list[Presented], user: UUID | None) -> list[Presented] | None:
    """At most MAX_TOKENS_TRIED of several tokens, those that lead on first; None when they are of several users."""
    owners = await session_store.owners(sessions.stores, [(each.sid, each.digest) for each in presented])
    places = sorted(place for place, owner in owners.items() if user in {None, owner})
    if len({owners[place] for place in places}) > 1:
        log.warning("refresh_tokens_mixed", users=sorted({str(owner) for owner in owners.values()}))
        return None
    selected = [presented[place] for place in places] or presented
    if len(selected) > MAX_TOKENS_TRIED:  # those that we issued come first; one of a retired master key can't show it
        selected = sorted(selected, key=lambda each: not sessions.issuer.issued_refresh_token(each.token))
    return selected[:MAX_TOKENS_TRIED]


async def _rotate(sessions: Sessions, presented: Presented, user: UUID | None) -> LoggedIn | None:
    """Spends a live token; None when it is not live, or not `user`'s."""
    next_token = sessions.issuer.next_refresh_token(presented.token)
    opened = await session_store.rotate(
        sessions.stores,
        presented.sid,
        presented.digest,
        refresh_tokens.digest(next_token),
        sessions.refresh_days,
        user,
    )
    return None if opened is None else sessions.logged_in(opened, presented.sid, next_token)


async def _repeat_or_revoke(sessions: Sessions, presented: Presented, user: UUID | None) -> LoggedIn | None:
    """The same next token again, of a token that was spent just now. None for any other; if we issued it, its session
    ends."""
    judged = await session_store.inspect_token(sessions.stores, presented.sid, presented.digest)
    # the last: not spent, but another user's
    if judged is None or not judged.live or judged.token_sha256 == presented.digest:
        return None
    if judged.within_reuse_grace and user not in {None, judged.opened.user}:
        return None
    if judged.within_reuse_grace:
        for next_token in sessions.issuer.possible_next_refresh_tokens(presented.token):
            if refresh_tokens.digest(next_token) == judged.token_sha256:
                return sessions.logged_in(judged.opened, presented.sid, next_token)
    if sessions.issuer.issued_refresh_token(presented.token):
        log.warning("refresh_token_reused", user=str(judged.opened.user), sid=str(presented.sid))
        await sessions.revoke(presented.sid)
    return None
