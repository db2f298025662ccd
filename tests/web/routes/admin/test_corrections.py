"""Reversals by the API, of every action id that a client may choose."""

from base64 import urlsafe_b64encode
from secrets import randbits
from urllib.parse import quote

from scoreboard.domain.roles import Role
from tests.operations.people import database_url
from tests.storage.seeds import Scribe, claim, connection
from tests.web.routes.admin.staff import person
from tests.web.site import serve_web

__all__ = ["database_url"]  # the module's own fixture


async def test_reverse_and_undo(database_url: str, redis_url: str) -> None:
    """Each answers with the change of the total; the second of two is told."""
    async with serve_web(database_url, redis_url) as server:
        mia, ann = await person(server, "Mia", Role.MODERATOR), await person(server, "Ann")
        async with connection(server.people.stores) as conn:
            await Scribe(conn, randbits(60)).record(
                [claim(ann.user, points=10, action_id="a1"), claim(ann.user, points=5, action_id="a2")]
            )
        path = f"users/{ann.user}/actions/a1/reverse"
        taken = (await mia.send("POST", path, json={"reason": "not played"})).json()["data"]
        assert taken.pop("timestamp").endswith("Z")
        same = {"userId": str(ann.user), "actionId": "a1"}
        assert taken == same | {"previousScore": 15, "pointsAwarded": -10, "newScore": 5}
        again = await mia.send("POST", path, json={"reason": "not played"})
        assert again.status_code == 409
        assert again.json()["detail"].startswith("This action was reversed already, by Mia at 2")
        data = (await mia.send("GET", f"users/{ann.user}")).json()["data"]
        assert data["score"] == 5
        assert [(entry["details"]["actionId"], entry["details"].get("isReversed")) for entry in data["history"]] == [
            ("a1", None),
            ("a2", False),
            ("a1", True),
        ]
        back = (await mia.send("DELETE", path)).json()["data"]
        assert (back["previousScore"], back["pointsAwarded"], back["newScore"]) == (5, 10, 15)
        assert (await mia.send("DELETE", path)).status_code == 409
        assert (await mia.send("DELETE", f"users/{ann.user}/actions/a2/reverse")).status_code == 404
        assert (await mia.send("POST", f"users/{mia.user}/actions/a1/reverse", json={"reason": "a"})).status_code == 403


async def test_no_action_id_is_out_of_reach(database_url: str, redis_url: str) -> None:
    """A cheat chooses the ids. Those that no path can hold are written in base64url after a `~`."""
    ids = ("a b", "é", "😀", "a/b", "..", ".", "a%2Fb", "\n", "~a", "a?b#c", "x" * 100, "\\")
    async with serve_web(database_url, redis_url) as server:
        mia, ann = await person(server, "Mia", Role.MODERATOR), await person(server, "Ann")
        async with connection(server.people.stores) as conn:
            await Scribe(conn, randbits(60)).record([claim(ann.user, points=10, action_id=each) for each in ids])
        for action_id in ids:
            encoded = "~" + urlsafe_b64encode(action_id.encode()).decode().rstrip("=")
            taken = await mia.send("POST", f"users/{ann.user}/actions/{encoded}/reverse", json={"reason": "a"})
            assert taken.status_code == 200, taken.text
            assert taken.json()["data"]["actionId"] == action_id
        for action_id in ("a b", "é", "x" * 100):
            back = await mia.send("DELETE", f"users/{ann.user}/actions/{quote(action_id, safe='')}/reverse")
            assert back.json()["data"]["pointsAwarded"] == 10


async def test_why_a_reversal_was_undone_becomes_a_note(database_url: str, redis_url: str) -> None:
    async with serve_web(database_url, redis_url) as server:
        mia, ann = await person(server, "Mia", Role.MODERATOR), await person(server, "Ann")
        async with connection(server.people.stores) as conn:
            await Scribe(conn, randbits(60)).record([claim(ann.user, points=10, action_id="a1")])
        path = f"users/{ann.user}/actions/a1/reverse"
        assert (await mia.send("POST", path, json={"reason": "too fast"})).status_code == 200
        assert (await mia.send("DELETE", path, json={"reason": "a fast player"})).status_code == 200
        assert (await mia.send("DELETE", path, json={"reason": "a fast player"})).status_code == 409
        history = (await mia.send("GET", f"users/{ann.user}")).json()["data"]["history"]
        notes = [entry["details"]["note"] for entry in history if entry["kind"] == "note"]
        assert notes == ["Why a1 counts again: a fast player"]
