"""The audit log for those with a role."""

from scoreboard.domain.roles import Role
from tests.operations.people import database_url
from tests.web.routes.admin.staff import person
from tests.web.site import serve_web

__all__ = ["database_url"]  # the module's own fixture


async def test_every_decision_is_in_the_log(database_url: str, redis_url: str) -> None:
    """With who, about whom, and ids of the rest: the reason stays where a user can be erased."""
    async with serve_web(database_url, redis_url) as server:
        adam, ann = await person(server, "Adam", Role.ADMIN), await person(server, "Ann")
        path = f"users/{ann.user}"
        await adam.send("POST", f"{path}/ban", json={"reason": "called me a fool"})
        await adam.send("DELETE", f"{path}/ban")
        await adam.send("POST", f"{path}/notes", json={"note": "called me a fool"})
        await adam.send("PUT", f"{path}/role", json={"role": "viewer"})
        answer = await adam.send("GET", "log", params={"subject": str(ann.user)})
        events = answer.json()["data"]["events"]
        assert [event["kind"] for event in events] == ["role_changed", "note_added", "ban_lifted", "user_banned"]
        assert {(event["actor"], event["actorName"], event["subject"]) for event in events} == {
            (str(adam.user), "Adam", str(ann.user))
        }
        assert events[0]["details"] == {"before": "none", "after": "viewer"}
        assert "fool" not in answer.text
        page = (await adam.send("GET", "log", params={"subject": str(ann.user), "limit": "3"})).json()["data"]
        assert page["events"] == events[:3]
        rest = {"subject": str(ann.user), "limit": "3", "cursor": page["next"]}
        assert (await adam.send("GET", "log", params=rest)).json()["data"] == {"events": events[3:], "next": None}
        only = (await adam.send("GET", "log", params={"kind": "user_banned"})).json()["data"]
        assert events[3] in only["events"]
        assert {event["kind"] for event in only["events"]} == {"user_banned"}


async def test_a_filter_that_names_nothing_is_refused(database_url: str, redis_url: str) -> None:
    async with serve_web(database_url, redis_url) as server:
        vic = await person(server, "Vic", Role.VIEWER)
        for field, text in (("kind", "user_loved"), ("subject", "Ann"), ("subject", "0"), ("cursor", "1-2")):
            answer = await vic.send("GET", "log", params={field: text})
            assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, field)
