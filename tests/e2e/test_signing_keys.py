"""Another signing key, node after node: nobody is logged out, and a service that reads our keys follows."""

import base64
import json
from collections.abc import Callable

import httpx
import jwt

from tests.e2e.server_processes import ServerProcess, register

StartNode = Callable[..., ServerProcess]


def keys(current: str, *kids: str) -> dict[str, str]:
    """The settings of a node with these keys."""
    every = {kid: base64.b64encode(kid.encode().ljust(32, b"!")).decode() for kid in kids}
    return {
        "security__signing_keys": json.dumps(every),
        "security__current_signing_key": current,
        "security__issuer": "scoreboard",
    }


async def test_two_nodes_that_sign_with_different_keys_accept_each_other(start_node: StartNode) -> None:
    """In the middle of a rotation: tokens of either key on either node, on HTTP and on a signed action, and a refresh
    on the other node gets a token of the new key. Both nodes publish both keys."""
    old, new = start_node(**keys("old", "old", "new")), start_node(**keys("new", "new", "old"))
    async with httpx.AsyncClient(base_url=old.url) as http:
        user = await register(http)
        assert jwt.get_unverified_header(user.token)["kid"] == "old"
        for node in (old, new):
            me = await http.get(f"{node.url}/api/v1/users/me", headers=user.authorization)
            assert me.status_code == 200
        refresh = {"refreshToken": user.signing.credentials.refreshToken}
        renewed = (await http.post(f"{new.url}/api/v1/auth/refresh", json=refresh)).json()["data"]
        assert jwt.get_unverified_header(renewed["accessToken"])["kid"] == "new"
        for node in (old, new):
            for token in (user.token, renewed["accessToken"]):
                authorization = {"authorization": f"Bearer {token}"}
                assert (await http.get(f"{node.url}/api/v1/users/me", headers=authorization)).status_code == 200
        published = [(await http.get(f"{node.url}/.well-known/jwks.json")).json()["keys"] for node in (old, new)]
        assert [[key["kid"] for key in each] for each in published] == [["old", "new"], ["new", "old"]]

    # The last step: the old key is gone, and with it what it has signed; the session goes on by a refresh.
    last = start_node(**keys("new", "new"))
    async with httpx.AsyncClient(base_url=last.url) as http:
        assert (await http.get("/api/v1/users/me", headers=user.authorization)).status_code == 401
        authorization = {"authorization": f"Bearer {renewed['accessToken']}"}
        assert (await http.get("/api/v1/users/me", headers=authorization)).status_code == 200
        again = await http.post("/api/v1/auth/refresh", json={"refreshToken": renewed["refreshToken"]})
        assert again.status_code == 200
