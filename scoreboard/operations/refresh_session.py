"""Refresh a session: exchanges a refresh token for a new pair of tokens. Reuse of a spent one ends the session
(refresh-token reuse detection, RFC 9700).

1. Tokens of another form are ignored. A sibling domain can set cookies, so a browser may present several tokens, one of
   them a live one of the attacker's own account. Then only tokens of `user` count, the user that the page is logged in
   as. When the page names no user, tokens of different users are refused.
2. The first live token is spent and replaced by the next one.
3. If none is live: a token that was spent within REFRESH_GRACE_SECONDS gives the same next token again. Two tabs may
   refresh at once, and an answer may be lost.
4. Any other spent token of this installation is a copy. It is unknown which of the two holders is the thief, so the
   session ends for both.
"""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import structlog

from scoreboard.domain.errors import Refusal
from scoreboard.operations.sessions import SESSION_ENDED, LoggedIn, Sessions
from scoreboard.security import refresh_tokens
from scoreboard.storage.postgres import sessions as session_store

MAX_TOKENS_TRIED = 4  # of one request: each needs one or two queries

log = structlog.get_logger()


class Presented(NamedTuple):
    """A refresh token of a request, and the session that it names."""

    token: str
    sid: UUID

    def __repr__(self) -> str:
        return f"Presented({self.sid})"  # never the token, whatever prints it

    @property
    def digest(self) -> bytes:
        return refresh_tokens.digest(self.token)


async def refresh_session(sessions: Sessions, tokens: Sequence[str], user: UUID | None) -> LoggedIn | Refusal:
    """A new pair of tokens for the first token that is live or was spent within the grace; else SESSION_ENDED. `user`:
    only tokens of this user count; None: of any user.

    Raises StorageUnavailable. After a cancellation the token may be spent; presenting it again within the grace gives
    the same next token.
    """
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
    """At most MAX_TOKENS_TRIED of several tokens, those that can be refreshed first. None when these belong to several
    users."""
    owners = await session_store.owners(sessions.stores, [(each.sid, each.digest) for each in presented])
    places = sorted(place for place, owner in owners.items() if user in {None, owner})
    if len({owners[place] for place in places}) > 1:
        log.warning("refresh_tokens_mixed", users=sorted({str(owner) for owner in owners.values()}))
        return None
    selected = [presented[place] for place in places] or presented
    if len(selected) > MAX_TOKENS_TRIED:  # tokens of this installation first, as far as the live master keys show it
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
    """The same next token again, for a token that was spent within the grace. None for any other; if this installation
    issued it, its session ends."""
    state = await session_store.inspect_token(sessions.stores, presented.sid, presented.digest)
    # the last condition: the token is live, but another user's
    if state is None or not state.live or state.token_sha256 == presented.digest:
        return None
    if state.within_reuse_grace and user not in {None, state.opened.user}:
        return None
    if state.within_reuse_grace:
        for next_token in sessions.issuer.possible_next_refresh_tokens(presented.token):
            if refresh_tokens.digest(next_token) == state.token_sha256:
                return sessions.logged_in(state.opened, presented.sid, next_token)
    if sessions.issuer.issued_refresh_token(presented.token):
        log.warning("refresh_token_reused", user=str(state.opened.user), sid=str(presented.sid))
        await sessions.revoke(presented.sid)
    return None
