"""Issues and verifies the tokens of an installation: access tokens, action secrets, refresh tokens, device cookies.

An `Issuer` holds the keys, so that its callers need not. New tokens are made with the current key; tokens of any live
key are accepted. Pure: ids, random values and the time are arguments. Whether a session has ended is checked in
operations.authenticator.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from scoreboard.security import device_cookies, refresh_tokens, tokens
from scoreboard.security.device_cookies import Device
from scoreboard.security.signatures import action_secret, action_secrets
from scoreboard.security.tokens import Claims, TokenKeys


@dataclass(frozen=True, slots=True)
class Issuer:
    """The keys of one installation, and what is made with them."""

    name: str  # the `iss` of access tokens
    token_keys: TokenKeys = field(repr=False)
    master_keys: Mapping[int, bytes] = field(repr=False)  # every live one, by version
    current_version: int  # of the master key for new tokens
    lifetime_seconds: int = tokens.ACCESS_TOKEN_SECONDS  # of an access token

    @property
    def _master_key(self) -> bytes:
        return self.master_keys[self.current_version]

    def access_token(self, user: UUID, sid: UUID, *, jti: str, now: float) -> str:
        """An access token of a session. `now` in Unix seconds."""
        return tokens.issue(
            self.token_keys,
            issuer=self.name,
            user=user,
            sid=sid,
            jti=jti,
            now=now,
            lifetime=self.lifetime_seconds,
        )

    def verify_access_token(self, token: str, *, now: float) -> Claims | None:
        """The claims of an access token that this installation issued and that is valid now. Never raises."""
        return tokens.verify(self.token_keys, token, issuer=self.name, now=now)

    def public_jwks(self) -> list[dict[str, str]]:
        """The public keys that verify this installation's access tokens, as JSON Web Keys."""
        return tokens.public_jwks(self.token_keys)

    def action_secret(self, user: UUID, sid: UUID) -> str:
        """A session's action secret of the current version."""
        return action_secret(self._master_key, user, sid)

    def action_secrets(self, user: UUID, sid: UUID) -> dict[int, bytes]:
        """The HMAC keys of a session, one a live master key version."""
        return action_secrets(self.master_keys, user, sid)

    def first_refresh_token(self, sid: UUID, value: bytes) -> str:
        """The refresh token that a new session begins with. `value`: VALUE_BYTES random bytes."""
        return refresh_tokens.make(self._master_key, sid, value)

    def next_refresh_token(self, previous: str) -> str:
        """The refresh token that follows `previous`."""
        return refresh_tokens.next_token(self._master_key, previous)

    def possible_next_refresh_tokens(self, previous: str) -> Iterator[str]:
        """The tokens that may have followed `previous`, one for each live master key: the key may have been rotated
        since."""
        return (refresh_tokens.next_token(key, previous) for key in self.master_keys.values())

    def issued_refresh_token(self, token: str) -> bool:
        """Whether this installation issued the refresh token, with any live master key."""
        return refresh_tokens.is_ours(self.master_keys, token)

    def device_cookie(self, user: UUID, nonce: bytes) -> str:
        """A browser's device cookie. `nonce`: NONCE_BYTES random bytes."""
        return device_cookies.make(self._master_key, user, nonce)

    def read_device_cookie(self, value: str) -> Device | None:
        """The browser that a device cookie names; None when this installation did not issue it."""
        return device_cookies.read(self.master_keys, value)
