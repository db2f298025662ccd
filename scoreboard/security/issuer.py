"""Issues and verifies the tokens of an installation: access tokens, action secrets, refresh tokens, device cookies.

An `Issuer` holds the keys, so that its callers need not. New tokens are made with the current key; tokens of any live
key are accepted. Refresh tokens and device cookies are made with the master keys of the settings alone. Action secrets
are made with the action keys: those master keys too, until `replace_action_keys` is called after a rotation or a
revocation. So a revoked version ends no session. Pure: ids, random values and the time are arguments. Whether a session
has ended is checked in operations.authenticator.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from scoreboard.security import device_cookies, log_in_attempts, refresh_tokens, tokens
from scoreboard.security.device_cookies import Device
from scoreboard.security.log_in_attempts import LogInAttempt
from scoreboard.security.signatures import action_secret, action_secrets
from scoreboard.security.tokens import Claims, TokenKeys


@dataclass(slots=True)
class Issuer:
    """The keys of one installation, and what is made with them."""

    name: str  # the `iss` of access tokens
    token_keys: TokenKeys = field(repr=False)
    master_keys: Mapping[int, bytes] = field(repr=False)  # of the settings, by version
    current_version: int  # of the master key for new refresh tokens and device cookies
    lifetime_seconds: int = tokens.ACCESS_TOKEN_SECONDS  # of an access token
    action_keys: Mapping[int, bytes] = field(init=False, repr=False)  # every live one, by version
    action_key_version: int = field(init=False)  # of the key for new action secrets

    def __post_init__(self) -> None:
        self.action_keys, self.action_key_version = self.master_keys, self.current_version

    def replace_action_keys(self, keys: Mapping[int, bytes], current: int) -> None:
        """From now on action secrets are derived from these keys, new ones from that of version `current`."""
        self.action_keys, self.action_key_version = keys, current

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
        # without a live key, which only a change of the table by hand can cause, the secret is one that nobody accepts
        key = self.action_keys.get(self.action_key_version) or self._master_key
        return action_secret(key, user, sid)

    def action_secrets(self, user: UUID, sid: UUID) -> dict[int, bytes]:
        """The HMAC keys of a session, one a live version."""
        return action_secrets(self.action_keys, user, sid)

    def first_refresh_token(self, sid: UUID, value: bytes) -> str:
        """The refresh token that a new session begins with. `value`: VALUE_BYTES random bytes."""
        return refresh_tokens.make(self._master_key, sid, value)

    def next_refresh_token(self, previous: str) -> str:
        """The refresh token that follows `previous`."""
        return refresh_tokens.next_token(self._master_key, previous)

    def possible_next_refresh_tokens(self, previous: str) -> Iterator[str]:
        """The tokens that may have followed `previous`, one for each master key: the current one may have changed
        since."""
        return (refresh_tokens.next_token(key, previous) for key in self.master_keys.values())

    def issued_refresh_token(self, token: str) -> bool:
        """Whether this installation issued the refresh token, with any master key of the settings."""
        return refresh_tokens.is_ours(self.master_keys, token)

    def device_cookie(self, user: UUID, nonce: bytes) -> str:
        """A browser's device cookie. `nonce`: NONCE_BYTES random bytes."""
        return device_cookies.make(self._master_key, user, nonce)

    def read_device_cookie(self, value: str) -> Device | None:
        """The browser that a device cookie names; None when this installation did not issue it."""
        return device_cookies.read(self.master_keys, value)

    def log_in_cookie(self, outside_issuer: str, seed: bytes, *, now: float) -> str:
        """The cookie of a log-in that a browser begins with an outside issuer. `seed`: SEED_BYTES random bytes."""
        return log_in_attempts.make_cookie(self._master_key, outside_issuer, seed, now=now)

    def read_log_in_cookie(self, outside_issuer: str, value: str, *, now: float) -> LogInAttempt | None:
        """The log-in that such a cookie is for; None when it is none of this installation's and this issuer's."""
        return log_in_attempts.read_cookie(self.master_keys, outside_issuer, value, now=now)
