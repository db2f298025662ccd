"""Users for moderators: what they see, and what they decide."""

import trio

from scoreboard.domain.roles import Role
from tests.operations.people import database_url
from tests.web.routes.admin.staff import person
from tests.web.site import serve_web

__all__ = ["database_url"]  # the module's own fixture


async def test_a_viewer_finds_and_reads_users_without_their_addresses(database_url: str, redis_url: str) -> None:
    """A search may match the whole address; no answer contains one."""
    async with serve_web(database_url, redis_url) as server:
        vic, ann = await person(server, "Vic", Role.VIEWER), await person(server, "Ann")
        for query in ("an", "ANN", "ann@example.org", str(ann.user)):
            answer = await vic.send("GET", "users", params={"query": query})
            assert answer.status_code == 200
            (found,) = answer.json()["data"]["users"]
            created = found.pop("createdAt")
            assert found == {
                "userId": str(ann.user),
                "username": "Ann",
                "avatarUrl": None,
                "role": None,
                "ban": None,
                "score": None,
            }
            assert "@" not in answer.text
        details = await vic.send("GET", f"users/{ann.user}")
        data = details.json()["data"]
        assert (data["createdAt"], data["sessions"], data["history"], data["next"]) == (created, 1, [], None)
        assert "@" not in details.text
        assert details.headers["cache-control"] == "no-store"


async def test_lists_have_pages(database_url: str, redis_url: str) -> None:
    async with serve_web(database_url, redis_url) as server:
        mia = await person(server, "Mia", Role.MODERATOR)
        people = [await person(server, f"Player{number}") for number in range(3)]
        found, cursor = list[str](), ""
        while True:
            params = {"query": "player", "limit": "2", "cursor": cursor}
            page = (await mia.send("GET", "users", params=params)).json()["data"]
            found += [user["userId"] for user in page["users"]]
            if (cursor := page["next"]) is None:
                break
        assert found == [str(each.user) for each in people]
        for number in range(3):
            answer = await mia.send("POST", f"users/{people[0].user}/notes", json={"note": f"note {number}"})
            assert answer.status_code == 201
        notes, cursor = list[str](), ""
        while True:
            path = f"users/{people[0].user}"
            page = (await mia.send("GET", path, params={"limit": "2", "cursor": cursor})).json()["data"]
            notes += [entry["details"]["note"] for entry in page["history"]]
            if (cursor := page["next"]) is None:
                break
        assert notes == ["note 2", "note 1", "note 0"]


async def test_a_ban_and_its_end(database_url: str, redis_url: str) -> None:
    """The second of two is told who decided what. The history tells of it, with the moderator's name."""
    async with serve_web(database_url, redis_url) as server:
        mia, max_, ann = (
            await person(server, "Mia", Role.MODERATOR),
            await person(server, "Max", Role.MODERATOR),
            await person(server, "Ann"),
        )
        path = f"users/{ann.user}/ban"
        banned = await mia.send("POST", path, json={"reason": " a bot ", "showReason": True})
        assert banned.status_code == 200
        assert banned.json()["data"]["ban"] == "ban"
        again = await max_.send("POST", path, json={"reason": "a bot", "shadow": True})
        assert (again.status_code, again.json()["code"]) == (409, "CONFLICT")
        assert again.json()["detail"].startswith("This user has a ban already, by Mia at 2")
        data = (await max_.send("GET", f"users/{ann.user}")).json()["data"]
        assert data["ban"] == "ban"
        (entry,) = data["history"]
        assert (entry["kind"], entry["id"]) == ("ban", banned.json()["data"]["banId"])
        assert entry["details"]["reason"] == "a bot"
        assert (entry["details"]["by"], entry["details"]["liftedAt"]) == ("Mia", None)
        assert (await max_.send("DELETE", path)).status_code == 204
        twice = await mia.send("DELETE", path)
        assert (twice.status_code, twice.json()["detail"].partition(" at ")[0]) == (
            409,
            "The ban was lifted already, by Max",
        )
        data = (await mia.send("GET", f"users/{ann.user}")).json()["data"]
        assert data["ban"] is None
        details = data["history"][0]["details"]
        assert details["liftedBy"] == "Max"
        assert details["liftedAt"].endswith("Z")
        assert (await mia.send("DELETE", f"users/{max_.user}/ban")).status_code == 404


async def test_a_banned_user_logs_in_and_reads(database_url: str, redis_url: str) -> None:
    """The open session and a new one: so the user can learn of the ban, and take the data along. Roles hold."""
    async with serve_web(database_url, redis_url) as server:
        mia, ann = await person(server, "Mia", Role.ADMIN), await person(server, "Ann", Role.VIEWER)
        assert (await mia.send("POST", f"users/{ann.user}/ban", json={"reason": "a bot"})).status_code == 200
        assert (await ann.send("GET", "/api/v1/users/me")).status_code == 200
        body = {"username": "Ann", "password": "correct horse battery"}
        assert (await server.http.post("/api/v1/auth/login", json=body)).status_code == 200
        assert (await ann.send("GET", "users")).status_code == 200


async def test_who_may_not_be_banned(database_url: str, redis_url: str) -> None:
    """Oneself, an admin by a moderator. A shadow ban with a reason for the user would tell of itself."""
    async with serve_web(database_url, redis_url) as server:
        mia, adam = await person(server, "Mia", Role.MODERATOR), await person(server, "Adam", Role.ADMIN)
        ann = await person(server, "Ann")
        for actor, subject in ((mia, mia), (adam, adam), (mia, adam)):
            for method, path in (("POST", "ban"), ("DELETE", "ban"), ("POST", "notes")):
                sent = {"note": "a"} if path == "notes" else {"reason": "a"}
                answer = await actor.send(method, f"users/{subject.user}/{path}", json=sent)
                assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")
        told = await mia.send("POST", f"users/{ann.user}/ban", json={"reason": "a", "shadow": True, "showReason": True})
        assert (told.status_code, told.json()["errors"][0]["field"]) == (400, "showReason")
        shadow = await mia.send("POST", f"users/{ann.user}/ban", json={"reason": "a", "shadow": True})
        assert shadow.json()["data"]["ban"] == "shadow"


async def test_an_admin_gives_roles_but_not_to_himself(database_url: str, redis_url: str) -> None:
    """The last one keeps the role; another one may take it. Two who take it from one another leave one."""
    async with serve_web(database_url, redis_url) as server:
        adam, ann = await person(server, "Adam", Role.ADMIN), await person(server, "Ann")
        for role in ("none", "viewer", "moderator"):
            last = await adam.send("PUT", f"users/{adam.user}/role", json={"role": role})
            assert (last.status_code, last.json()["code"]) == (409, "CONFLICT")
        given = await adam.send("PUT", f"users/{ann.user}/role", json={"role": "admin"})
        assert given.json()["data"] == {"userId": str(ann.user), "role": "admin"}
        outcomes = list[int]()

        async def take(actor: object, of: object) -> None:
            answer = await actor.send("PUT", f"users/{of.user}/role", json={"role": "none"})  # type: ignore[attr-defined]
            outcomes.append(answer.status_code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, adam, ann)
            nursery.start_soon(take, ann, adam)
        assert sorted(outcomes) == [200, 403]


async def test_two_requests_at_once_decide_once(database_url: str, redis_url: str) -> None:
    """The same moderator, twice at the same moment: one ban, one event, and one is told so."""
    async with serve_web(database_url, redis_url) as server:
        mia, ann = await person(server, "Mia", Role.MODERATOR), await person(server, "Ann")
        statuses = list[int]()

        async def ban() -> None:
            answer = await mia.send("POST", f"users/{ann.user}/ban", json={"reason": "a bot"})
            statuses.append(answer.status_code)

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ban)
        assert sorted(statuses) == [200, 409, 409, 409]
        stores = server.people.stores
        assert await stores.fetchval("SELECT count(*) FROM bans") == 1
        assert (
            await stores.fetchval(
                "SELECT count(*) FROM audit_events WHERE subject = $1 AND kind = 'user_banned'", ann.user
            )
            == 1
        )


async def test_why_a_ban_was_lifted_becomes_a_note(database_url: str, redis_url: str) -> None:
    """In the ban's own transaction: the second of two moderators leaves none. The document says that the body is
    optional."""
    async with serve_web(database_url, redis_url) as server:
        mia, ann = await person(server, "Mia", Role.MODERATOR), await person(server, "Ann")
        path = f"users/{ann.user}/ban"
        await mia.send("POST", path, json={"reason": "a bot"})
        assert (await mia.send("DELETE", path, json={"reason": " no bot "})).status_code == 204
        assert (await mia.send("DELETE", path, json={"reason": "no bot"})).status_code == 409
        history = (await mia.send("GET", f"users/{ann.user}")).json()["data"]["history"]
        notes = [entry["details"] for entry in history if entry["kind"] == "note"]
        assert notes == [{"note": "Why the ban was lifted: no bot", "by": "Mia"}]
        document = (await server.http.get("/api/v1/openapi.json")).json()
        operation = document["paths"]["/api/v1/admin/users/{user}/ban"]
        assert [operation[method]["requestBody"]["required"] for method in ("post", "delete")] == [True, False]
