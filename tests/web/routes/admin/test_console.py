"""The own role, and the server keys without their secrets."""

from scoreboard.domain.roles import Role
from scoreboard.domain.scopes import Scope
from scoreboard.operations.admin.server_keys import NewKey, create_key, revoke_key
from tests.operations.people import database_url
from tests.web.routes.admin.staff import person
from tests.web.site import serve_web

__all__ = ["database_url"]  # the module's own fixture


async def test_everybody_with_a_role_reads_it(database_url: str, redis_url: str) -> None:
    async with serve_web(database_url, redis_url) as server:
        for role in Role:
            who = await person(server, f"Person{role}", role)
            data = (await who.send("GET", "me")).json()["data"]
            assert data == {"userId": str(who.user), "username": f"Person{role}", "role": role}
        nobody = await person(server, "Nobody")
        assert (await nobody.send("GET", "me")).status_code == 403


async def test_server_keys_are_listed_without_their_secrets(database_url: str, redis_url: str) -> None:
    """Page by page, the oldest first, revoked ones too. Only for an admin."""
    async with serve_web(database_url, redis_url) as server:
        adam, mia = await person(server, "Adam", Role.ADMIN), await person(server, "Mia", Role.MODERATOR)
        stores = server.people.stores
        made = [await create_key(stores, f"<b>key {number}", list(Scope)[:2]) for number in range(3)]
        assert all(isinstance(each, NewKey) for each in made)
        await revoke_key(stores, "<b>key 1")
        page = (await adam.send("GET", "server-keys", params={"limit": "2"})).json()["data"]
        answer = await adam.send("GET", "server-keys", params={"limit": "2", "cursor": page["next"]})
        rest = answer.json()["data"]
        keys = page["keys"] + rest["keys"]
        assert [key["name"] for key in keys] == ["<b>key 0", "<b>key 1", "<b>key 2"]
        assert [key["revokedAt"] is None for key in keys] == [True, False, True]
        assert keys[0]["scopes"] == [str(scope) for scope in list(Scope)[:2]]
        assert (keys[0]["lastUsedAt"], keys[0]["expiresAt"], keys[0]["overlaps"], rest["next"]) == (
            *(None, None, False, None),
        )
        whole = (await adam.send("GET", "server-keys")).text
        assert not any(isinstance(each, NewKey) and each.key in whole for each in made)
        assert (await mia.send("GET", "server-keys")).status_code == 403
        for cursor in ("x", "0" * 12):
            assert (await adam.send("GET", "server-keys", params={"cursor": cursor})).status_code == 400
