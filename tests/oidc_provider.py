"""A small OpenID Provider that tests run: discovery, authorization, token and key endpoints over HTTPS, with PKCE.

It does what a provider should, unless it is told to lie: `lies` has the names of what it does wrong. It asks no
questions: whoever comes to its authorization endpoint is `subject`, and agrees unless `denies`.
"""

import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from secrets import token_urlsafe
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import trio

from tests.https_server import Asked, HttpsServer, Reply, https_server
from tests.outside_keys import SigningKey, ec_key, ed_key, encode, joined, rsa_key, sign_with_secret

CLIENT, SECRET = "scoreboard", "s3cret:/ é"  # as a header they must be encoded
NEVER = 3600.0  # seconds; longer than any caller waits


@dataclass
class Grant:
    """What a code stands for."""

    nonce: str
    challenge: str
    redirect_uri: str
    used: bool = False


@dataclass
class OidcProvider:
    """`claims` are added to each ID token. `key` signs; `published` are the keys at the JWKS address."""

    server: HttpsServer
    redirect_uri: str = ""
    subject: str = "user-1"
    client_secret: str = SECRET  # "": a public client
    denies: bool = False
    lies: set[str] = field(default_factory=set)
    claims: dict[str, Any] = field(default_factory=lambda: {"preferred_username": "Ada"})
    key: SigningKey = field(default_factory=ed_key)
    published: list[SigningKey] = field(default_factory=lambda: [ed_key(), rsa_key()])
    metadata: dict[str, Any] = field(default_factory=dict)
    grants: dict[str, Grant] = field(default_factory=dict)
    now: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        self.server.replies |= {
            "/.well-known/openid-configuration": self._discovery,
            "/authorize": self._authorize,
            "/token": self._token,
            "/keys": self._keys,
        }

    @property
    def issuer(self) -> str:
        return self.server.url

    @property
    def table(self) -> dict[str, Any]:
        """The table of settings for this provider."""
        return {"issuer": self.issuer, "client_id": CLIENT, "client_secret": self.client_secret, "title": "School"}

    def count(self, path: str) -> int:
        """How often that path was asked for."""
        return sum(urlsplit(asked.target).path == path for asked in self.server.asked)

    async def _discovery(self, _asked: Asked) -> Reply:
        document = {
            "issuer": "https://evil.example" if "discovery_of_another_issuer" in self.lies else self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "authorization_response_iss_parameter_supported": True,
        } | self.metadata
        return Reply(json.dumps(document).encode())

    async def _keys(self, _asked: Asked) -> Reply | None:
        if "keys_hang_up" in self.lies:
            return None
        if "keys_huge" in self.lies:
            return Reply(b'{"keys": [' + b" " * 70_000 + b"]}")
        return Reply(json.dumps({"keys": [key.jwk for key in self.published]}).encode())

    async def _authorize(self, asked: Asked) -> Reply:
        """Sends the browser back with a code, if everything is as a client must ask for it."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(asked.target).query).items()}
        if query.get("redirect_uri") != self.redirect_uri or query.get("client_id") != CLIENT:
            return Reply(b"unknown client or redirect URI", 400)
        answer = {"state": query["state"], "iss": self.issuer}
        if self.denies:
            answer |= {"error": "access_denied", "error_description": "<b>call 555-0100</b>"}
        elif (
            query["response_type"] != "code"
            or query["code_challenge_method"] != "S256"
            or "openid" not in query["scope"].split()
        ):
            answer |= {"error": "invalid_request"}
        else:
            answer["code"] = token_urlsafe(24)
            self.grants[answer["code"]] = Grant(query["nonce"], query["code_challenge"], query["redirect_uri"])
        if "no_iss" in self.lies:
            del answer["iss"]
        if "iss_of_another" in self.lies:
            answer["iss"] = "https://evil.example"
        location = f"{self.redirect_uri}?{urlencode(answer)}"
        return Reply(b"", 302, (("location", location),))

    async def _token(self, asked: Asked) -> Reply | None:
        form = {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}
        grant = self.grants.get(form.get("code", ""))
        if not self._is_client(asked, form):
            return Reply(b'{"error": "invalid_client"}', 401)
        if (
            grant is None
            or (grant.used and "code_reuse" not in self.lies)
            or form.get("grant_type") != "authorization_code"
            or form.get("redirect_uri") != grant.redirect_uri
            or encode(sha256(form.get("code_verifier", "").encode()).digest()) != grant.challenge
        ):
            return Reply(b'{"error": "invalid_grant"}', 400)
        grant.used = True
        return await self._answer_token(self._id_token(grant))

    async def _answer_token(self, id_token: object) -> Reply | None:
        answer = {"access_token": "at", "token_type": "Bearer", "id_token": id_token}
        if "slow" in self.lies:
            await trio.sleep(NEVER)
        if "hang_up" in self.lies:
            return None
        if "redirect" in self.lies:
            return Reply(b"", 307, (("location", f"{self.issuer}/token"),))
        if "huge" in self.lies:
            answer["more"] = "x" * 70_000
        if "server_error" in self.lies:
            return Reply(b"oops", 500)
        if "not_json" in self.lies:
            return Reply(b"<html>")
        if "no_id_token" in self.lies:
            del answer["id_token"]
        if "id_token_no_text" in self.lies:
            answer["id_token"] = {"a": 1}
        return Reply(json.dumps(answer).encode())

    def _is_client(self, asked: Asked, form: dict[str, str]) -> bool:
        if self.metadata.get("token_endpoint_auth_methods_supported") == ["client_secret_post"]:
            return (form.get("client_id"), form.get("client_secret")) == (CLIENT, self.client_secret)
        if not self.client_secret:
            return form.get("client_id") == CLIENT and "authorization" not in asked.headers
        scheme, _, value = asked.headers.get("authorization", "").partition(" ")
        name, _, secret = base64.b64decode(value).decode().partition(":")
        return (scheme, unquote(name), unquote(secret)) == ("Basic", CLIENT, self.client_secret)

    def _id_token(self, grant: Grant) -> str:
        now = int(self.now())
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": CLIENT,
            "sub": self.subject,
            "exp": now + 300,
            "iat": now,
            "nonce": grant.nonce,
        } | self.claims
        changes: dict[str, dict[str, Any]] = {
            "wrong_nonce": {"nonce": "another"},
            "no_nonce": {"nonce": None},
            "wrong_audience": {"aud": "another-client"},
            "many_audiences": {"aud": [CLIENT, "another-client"]},
            "another_party": {"azp": "another-client"},
            "swapped_issuer": {"iss": "https://evil.example"},
            "expired": {"exp": now - 3600},
            "of_tomorrow": {"iat": now + 86_400, "exp": now + 90_000},
            "no_subject": {"sub": None},
            "empty_subject": {"sub": ""},
            "long_subject": {"sub": "x" * 256},
            "subject_of_another_type": {"sub": ["user-1"]},
            "subject_with_nul": {"sub": "user\0"},
        }
        for lie in self.lies & set(changes):
            claims |= changes[lie]
        return self._sign({name: value for name, value in claims.items() if value is not None})

    def _sign(self, claims: dict[str, Any]) -> str:
        if "alg_none" in self.lies:
            return joined({"alg": "none", "kid": self.key.kid}, claims) + "."
        if "alg_none_signed" in self.lies:
            return joined({"alg": "none", "kid": self.key.kid}, claims) + ".AAAA"
        if "hs256_with_public_key" in self.lies:
            return sign_with_secret(json.dumps(rsa_key().jwk).encode(), claims, kid=rsa_key().kid)
        if "hs256_with_client_secret" in self.lies:
            return sign_with_secret(self.client_secret.encode(), claims)
        if "unknown_kid" in self.lies:
            return ed_key("unknown").sign(claims)
        if "another_key" in self.lies:
            return ed_key("unknown").sign(claims, kid=self.key.kid)
        if "key_of_another_type" in self.lies:
            return ec_key().sign(claims, kid=rsa_key().kid)
        if "own_key_in_header" in self.lies:
            return ed_key("unknown").sign(claims, kid=self.key.kid, jwk=ed_key("unknown").jwk)
        if "changed_after_signing" in self.lies:
            head, _, signature = self.key.sign(claims).split(".")
            return f"{head}.{encode(json.dumps(claims | {'sub': 'admin'}).encode())}.{signature}"
        return self.key.sign(claims)


@asynccontextmanager
async def oidc_provider(folder: Path, redirect_uri: str = "", **settings: Any) -> AsyncIterator[OidcProvider]:
    """Serves until the block ends."""
    async with https_server(folder) as server:
        yield OidcProvider(server, redirect_uri, **settings)
