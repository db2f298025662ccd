"""`/.well-known/jwks.json`: what another service verifies our tokens with."""

import json

import jwt

from scoreboard.security.tokens import AUDIENCE, TokenKeys, public_jwks
from tests.operations.people import ISSUER, KEYS, database_url
from tests.web.site import serve_web

__all__ = ["database_url"]  # the module's own fixture

PATH = "/.well-known/jwks.json"


async def test_another_service_verifies_our_tokens(database_url: str, redis_url: str) -> None:
    """With a library of its own, by the `kid` of the token. No private byte is in the answer."""
    async with serve_web(database_url, redis_url, all_handlers=True) as server:
        token = (await server.register())["accessToken"]
        for handler in (server.http, *server.other_handlers):
            answer = await handler.get(PATH)
            assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
            assert answer.headers["cache-control"] == "public, max-age=300"
            assert answer.headers["access-control-allow-origin"] == "*"
            (key,) = answer.json()["keys"]
            assert {*key} == {"kty", "crv", "use", "alg", "kid", "x"}
            claims = jwt.decode(
                token,
                jwt.PyJWK(key),
                algorithms=["EdDSA"],
                audience=AUDIENCE,
                issuer=ISSUER,
                options={"verify_iat": False},
            )
            assert claims["sub"]
            again = await handler.get(PATH, headers={"if-none-match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
        refused = await server.http.post(PATH)
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")


def test_every_live_key_is_published_the_signing_one_first() -> None:
    keys = TokenKeys.from_private({"old": b"o" * 32, "new": b"n" * 32}, "new")
    published = public_jwks(keys)
    assert [key["kid"] for key in published] == ["new", "old"]
    assert len({key["x"] for key in published}) == 2
    for key in published:
        assert jwt.PyJWK(key).key.public_bytes_raw() == keys.verifying[key["kid"]].public_bytes_raw()
    assert "d" not in json.dumps([sorted(key) for key in public_jwks(KEYS)]).replace("kid", "")
