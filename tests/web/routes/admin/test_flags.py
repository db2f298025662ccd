"""Flags by the API: listed by state and user, decided once."""

from uuid import UUID

from scoreboard.domain.anomalies import AnomalyRule
from scoreboard.domain.flags import FlagDraft
from scoreboard.domain.roles import Role
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres import flags
from tests.operations.people import database_url
from tests.web.routes.admin.staff import person
from tests.web.site import serve_web

__all__ = ["database_url"]  # the module's own fixture


async def flagged(stores: Stores, user: UUID, rule: AnomalyRule) -> str:
    (flag,) = await stores.in_transaction(flags.open_aio, [FlagDraft(rule, user, {"points": 2000}, 5)])
    return str(flag.id)


async def test_flags_are_listed_and_decided_once(database_url: str, redis_url: str) -> None:
    """The second moderator is told what was decided."""
    async with serve_web(database_url, redis_url) as server:
        mia, max_ = await person(server, "Mia", Role.MODERATOR), await person(server, "Max", Role.MODERATOR)
        ann, bob = await person(server, "Ann"), await person(server, "Bob")
        stores = server.people.stores
        rules = list(AnomalyRule)[:2]
        first, second = [await flagged(stores, ann.user, rule) for rule in rules]
        third = await flagged(stores, bob.user, rules[0])
        everything = (await mia.send("GET", "flags")).json()["data"]
        assert [flag["flagId"] for flag in everything["flags"]] == [third, second, first]
        assert everything["next"] is None
        flag = everything["flags"][2]
        assert (flag["userId"], flag["rule"], flag["state"]) == (str(ann.user), rules[0], "open")
        assert (flag["evidence"], flag["decidedBy"]) == ({"points": 2000}, None)
        page = (await mia.send("GET", "flags", params={"limit": "2"})).json()["data"]
        rest = (await mia.send("GET", "flags", params={"limit": "2", "cursor": page["next"]})).json()["data"]
        assert [flag["flagId"] for flag in page["flags"] + rest["flags"]] == [third, second, first]
        decided = await mia.send("POST", f"flags/{first}", json={"verdict": "revoke", "reason": " a bot "})
        data = decided.json()["data"]
        assert (data["state"], data["decidedBy"], data["reason"]) == ("revoked", str(mia.user), "a bot")
        again = await max_.send("POST", f"flags/{first}", json={"verdict": "approve", "reason": "fine"})
        assert again.status_code == 409
        assert again.json()["detail"].startswith(f"This flag was decided already: revoked, by {mia.user} at 2")
        found = (await max_.send("GET", "flags", params={"state": "revoked"})).json()["data"]["flags"]
        assert [flag["flagId"] for flag in found] == [first]
        found = (await max_.send("GET", "flags", params={"user": str(ann.user), "state": "open"})).json()["data"][
            "flags"
        ]
        assert [flag["flagId"] for flag in found] == [second]


async def test_nobody_decides_his_own_flag_and_bad_requests_are_refused(database_url: str, redis_url: str) -> None:
    async with serve_web(database_url, redis_url) as server:
        mia, adam = await person(server, "Mia", Role.MODERATOR), await person(server, "Adam", Role.ADMIN)
        stores, rule = server.people.stores, next(iter(AnomalyRule))
        body = {"verdict": "approve", "reason": "fine"}
        for actor, subject in ((mia, mia), (mia, adam)):
            flag = await flagged(stores, subject.user, rule)
            assert (await actor.send("POST", f"flags/{flag}", json=body)).status_code == 403
            await stores.execute("DELETE FROM flags")
        for name in ("0", "999999", "x", "9" * 30, "-1"):
            assert (await mia.send("POST", f"flags/{name}", json=body)).status_code == 404
        for field, text in (("state", "lost"), ("user", "Ann")):
            answer = await mia.send("GET", "flags", params={field: text})
            assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, field)
        assert (
            await stores.fetchval(
                "SELECT count(*) FROM audit_events WHERE kind = 'flag_decided' AND actor = $1", str(mia.user)
            )
            == 0
        )
