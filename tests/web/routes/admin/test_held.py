"""Actions that wait, by the API: read with their evidence, refused once. operations has the approvals."""

from hashlib import sha256

from scoreboard.domain.roles import Role
from tests.operations.people import database_url
from tests.web.routes.admin.staff import Person, person
from tests.web.site import serve_web

__all__ = ["database_url"]  # the module's own fixture

BLOB = b"<script>alert(1)</script>"
REFUSE = {"verdict": "refuse", "reason": "too fast"}


async def hold(of: Person, action_id: str, digest: str | None = None) -> str:
    """An action of that user that waits; its number."""
    return str(
        await of.server.people.stores.fetchval(
            "INSERT INTO held_actions (user_id, action_id, action_type, points, timestamp_ms, signature, metadata, "
            "body_sha256, evidence_sha256, evidence_size, expires_at, undecided, retention_days) VALUES "
            "($1, $2, 'race', 5, 1, 's', '{\"lap\": 3}', '', decode($3, 'hex'), $4, now() + interval '1 day', "
            "'refuse', 1) RETURNING id",
            of.user,
            action_id,
            digest,
            None if digest is None else len(BLOB),
        )
    )


async def test_waiting_actions_are_listed_oldest_first_and_decided_once(database_url: str, redis_url: str) -> None:
    async with serve_web(database_url, redis_url) as server:
        mia, max_ = await person(server, "Mia", Role.MODERATOR), await person(server, "Max", Role.MODERATOR)
        ann = await person(server, "Ann")
        numbers = [await hold(ann, f"a{number}") for number in range(3)]
        page = (await mia.send("GET", "held", params={"limit": "2"})).json()["data"]
        rest = (await mia.send("GET", "held", params={"limit": "2", "cursor": page["next"]})).json()["data"]
        assert [row["heldId"] for row in page["held"] + rest["held"]] == numbers
        assert rest["next"] is None
        row = page["held"][0]
        assert (row["userId"], row["actionId"], row["points"]) == (str(ann.user), "a0", 5)
        assert (row["metadata"], row["status"], row["undecided"]) == ({"lap": 3}, "held", "refuse")
        refused = (await mia.send("POST", f"held/{numbers[0]}", json=REFUSE)).json()["data"]
        assert (refused["status"], refused["decidedBy"], refused["reason"]) == ("refused", str(mia.user), "too fast")
        again = await max_.send("POST", f"held/{numbers[0]}", json={"verdict": "approve", "reason": "fine"})
        assert again.status_code == 409
        assert again.json()["detail"].startswith(f"This action was decided already: refused, by {mia.user} at 2")
        left = (await mia.send("GET", "held")).json()["data"]["held"]
        assert [row["heldId"] for row in left] == numbers[1:]


async def test_evidence_comes_as_a_file_that_no_browser_shows(database_url: str, redis_url: str) -> None:
    """It is a stranger's, and may be a page with a script. Not before it was uploaded, and to nobody without a role."""
    async with serve_web(database_url, redis_url) as server:
        vic, ann = await person(server, "Vic", Role.VIEWER), await person(server, "Ann")
        digest = sha256(BLOB).hexdigest()
        number, without = await hold(ann, "a1", digest), await hold(ann, "a2")
        path = f"held/{number}/evidence"
        assert (await vic.send("GET", path)).status_code == 404
        answer = await ann.send("PUT", f"/api/v1/actions/evidence/{digest}", content=BLOB)
        assert answer.status_code == 204
        answer = await vic.send("GET", path)
        assert (answer.status_code, answer.content) == (200, BLOB)
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith("attachment")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert (await vic.send("GET", f"held/{without}/evidence")).status_code == 404
        assert (await ann.send("GET", path)).status_code == 403


async def test_what_is_refused(database_url: str, redis_url: str) -> None:
    """One's own action, that of an admin, what is not there, a reason of spaces; without committers an approval is 503,
    and the action goes on waiting."""
    async with serve_web(database_url, redis_url) as server:
        mia, adam = await person(server, "Mia", Role.MODERATOR), await person(server, "Adam", Role.ADMIN)
        ann = await person(server, "Ann")
        for actor, subject in ((mia, mia), (mia, adam), (adam, adam)):
            number = await hold(subject, f"of {actor.user}")
            assert (await actor.send("POST", f"held/{number}", json=REFUSE)).status_code == 403
        for name in ("0", "999999", "x", "9" * 30):
            assert (await mia.send("POST", f"held/{name}", json=REFUSE)).status_code == 404
        number = await hold(ann, "a1")
        assert (await mia.send("POST", f"held/{number}", json=REFUSE | {"reason": " "})).status_code == 400
        approval = await mia.send("POST", f"held/{number}", json={"verdict": "approve", "reason": "fine"})
        assert approval.status_code == 503
        stores = server.people.stores
        assert await stores.fetchval("SELECT status FROM held_actions WHERE user_id = $1", ann.user) == "held"
