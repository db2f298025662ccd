"""The routes of the transparency log, as a stranger uses them who believes nothing: operations.transparency behind real
HTTP, a real tree in PostgreSQL."""

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio

from scoreboard.domain.log_records import read_action
from scoreboard.domain.merkle import is_consistent, leaf_hash, root_from_inclusion
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.stores import Stores
from scoreboard.operations import transparency
from scoreboard.security.checkpoints import Checkpoint, open_checkpoint, read_verifier_key
from scoreboard.storage.sealing import Sealing
from tests.storage.seeds import Scribe, claim, connection
from tests.web.site import LOG_SIGNER, WebServer, serve_web

AUDIT = "/api/v1/audit"


async def seal(stores: Stores) -> None:
    sealing = Sealing(stores, LOG_SIGNER.sign)
    with trio.fail_after(10):
        while (await run_in_asyncio(sealing.step_aio)).waiting:
            pass
    sealing.close()


async def play(server: WebServer, user: str, action_ids: Sequence[str]) -> None:
    async with connection(server.people.stores) as conn:
        await Scribe(conn, uuid4().int >> 66).record(
            [claim(UUID(user), action_id=action_id, metadata='{"mood": "private"}') for action_id in action_ids]
        )


async def get_proof(server: WebServer, user: str, action_id: str) -> dict[str, Any]:
    answer = await server.http.get(f"{AUDIT}/proof", params={"userId": user, "actionId": action_id})
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert isinstance(data, dict)
    return data


async def get_checkpoint(server: WebServer) -> Checkpoint:
    answer = await server.http.get(f"{AUDIT}/checkpoint")
    assert answer.headers["content-type"].startswith("text/plain")
    opened = open_checkpoint(answer.text, LOG_SIGNER.verifier)
    assert opened is not None
    return opened


async def test_a_stranger_verifies_that_an_action_is_in_the_log(database_url: str, redis_url: str) -> None:
    """With the published key, and without a token."""
    async with serve_web(database_url, redis_url) as server:
        user = (await server.register())["userId"]
        await play(server, user, ["level-1", "lëvel 2/&?", *map(str, range(20))])
        await seal(server.people.stores)
        key = read_verifier_key((await server.http.get(f"{AUDIT}/key")).text)
        assert key == LOG_SIGNER.verifier
        for action_id in ("level-1", "lëvel 2/&?"):
            proof = await get_proof(server, user, action_id)
            checkpoint = open_checkpoint(proof["checkpoint"], key)
            assert checkpoint is not None
            path = [bytes.fromhex(step) for step in proof["path"]]
            leaf = leaf_hash(proof["record"].encode())
            assert root_from_inclusion(leaf, proof["index"], proof["size"], path) == checkpoint.root
            assert (checkpoint.size, set(proof)) == (
                proof["size"],
                {"record", "salt", "index", "size", "path", "checkpoint"},
            )
            fields = read_action(proof["record"], bytes.fromhex(proof["salt"]), user, action_id)
            assert isinstance(fields, dict)
            assert fields["points"] == 10
            assert "private" not in json.dumps(proof)
            assert len(json.dumps(proof)) < 1500  # bytes


async def test_a_proof_is_of_the_named_users_action_alone(database_url: str, redis_url: str) -> None:
    """Another user's id, or another action's, has no proof; and no proof passes for another action."""
    async with serve_web(database_url, redis_url) as server:
        ada, bob = (await server.register())["userId"], (await server.register("Bob"))["userId"]
        await play(server, ada, ["level-1"])
        await play(server, bob, ["level-2"])
        await seal(server.people.stores)
        for user, action_id in ((ada, "level-2"), (bob, "level-1"), (str(uuid4()), "level-1"), (ada, "LEVEL-1")):
            answer = await server.http.get(f"{AUDIT}/proof", params={"userId": user, "actionId": action_id})
            assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")
        theirs = await get_proof(server, bob, "level-2")
        assert isinstance(read_action(theirs["record"], bytes.fromhex(theirs["salt"]), ada, "level-1"), str)
        assert isinstance(read_action(theirs["record"], bytes.fromhex(theirs["salt"]), bob, "level-1"), str)


async def test_an_action_has_no_proof_before_it_is_sealed(database_url: str, redis_url: str) -> None:
    async with serve_web(database_url, redis_url) as server:
        user = (await server.register())["userId"]
        await play(server, user, ["level-1"])
        answer = await server.http.get(f"{AUDIT}/proof", params={"userId": user, "actionId": "level-1"})
        assert answer.status_code == 404
        assert "within 5 s" in answer.json()["detail"]


async def test_an_action_that_was_changed_in_the_database_has_no_proof(database_url: str, redis_url: str) -> None:
    async with serve_web(database_url, redis_url) as server:
        user = (await server.register())["userId"]
        await play(server, user, ["level-1"])
        await seal(server.people.stores)
        await server.people.stores.execute("UPDATE action_logs SET points_awarded = 1000")
        answer = await server.http.get(f"{AUDIT}/proof", params={"userId": user, "actionId": "level-1"})
        assert (answer.status_code, answer.json()["detail"]) == (404, transparency.CHANGED.detail)


async def test_two_checkpoints_are_consistent_by_the_proof(database_url: str, redis_url: str) -> None:
    async with serve_web(database_url, redis_url) as server:
        user = (await server.register())["userId"]
        empty = await get_checkpoint(server)
        assert empty.size == 0
        checkpoints = []
        for number in range(3):
            await play(server, user, [f"{number}-{action}" for action in range(5)])
            await seal(server.people.stores)
            checkpoints.append(await get_checkpoint(server))
        for first in checkpoints:
            for second in checkpoints:
                if first.size <= second.size:
                    answer = await server.http.get(
                        f"{AUDIT}/consistency", params={"from": first.size, "to": second.size}
                    )
                    path = [bytes.fromhex(step) for step in answer.json()["data"]["path"]]
                    assert is_consistent(first.size, second.size, first.root, second.root, path)


async def test_a_monitor_rebuilds_the_root_from_the_leaves(database_url: str, redis_url: str) -> None:
    async with serve_web(database_url, redis_url) as server:
        user = (await server.register())["userId"]
        await play(server, user, [str(number) for number in range(9)])
        await seal(server.people.stores)
        lines = []
        for start in (0, 4, 8):
            answer = await server.http.get(f"{AUDIT}/leaves", params={"from": start, "to": start + 4})
            assert answer.headers["content-type"] == "application/jsonl"
            lines += [json.loads(line) for line in answer.text.splitlines()]
        assert [line["index"] for line in lines] == list(range(9))
        leaves = [bytes.fromhex(line["hash"]) for line in lines]
        path = [leaves[8]]
        left = leaves[:8]
        while len(left) > 1:
            left = [transparency_node(a, b) for a, b in zip(left[::2], left[1::2], strict=True)]
        assert root_from_inclusion(left[0], 0, 2, path) == (await get_checkpoint(server)).root


def transparency_node(left: bytes, right: bytes) -> bytes:
    root = root_from_inclusion(left, 0, 2, [right])
    assert root is not None
    return root


BAD_NUMBERS = ["", "-1", "+1", "1.5", "1e3", "x", "0x10", "٣", "9" * 19, "1" * 400, "1 ", "null"]


@pytest.mark.parametrize("route", ["consistency", "leaves"])
async def test_numbers_that_are_none_are_refused(database_url: str, redis_url: str, route: str) -> None:
    async with serve_web(database_url, redis_url) as server:
        for bad in BAD_NUMBERS:
            for params in ({"from": bad, "to": "5"}, {"from": "1", "to": bad}):
                answer = await server.http.get(f"{AUDIT}/{route}", params=params)
                assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_REQUEST"), bad


BAD_QUERIES = [
    "consistency?from=0&to=5",
    "consistency?from=3&to=2",
    "consistency?from=1&to=999999999999999999",
    "consistency?from=1&to=6",
    "consistency",
    "consistency?from=1",
    "consistency?from=1&to=2&size=3",
    "leaves?from=0&to=1001",
    "leaves?from=2&to=1",
    "leaves?to=1",
    "proof",
    "proof?userId=x&actionId=a",
    "proof?userId=00000000-0000-4000-8000-000000000001",
    "proof?userId=00000000-0000-4000-8000-000000000001&actionId=",
    "proof?userId=00000000-0000-4000-8000-000000000001&actionId=%00",
    "proof?userId=00000000-0000-4000-8000-000000000001&actionId=" + "a" * 101,
    "proof?userId=00000000000040008000000000000001&actionId=a",
    "proof?userId=00000000-0000-4000-8000-000000000001'--&actionId=a",
]


async def test_queries_out_of_range_are_refused(database_url: str, redis_url: str) -> None:
    async with serve_web(database_url, redis_url) as server:
        user = (await server.register())["userId"]
        await play(server, user, list("abcde"))
        await seal(server.people.stores)
        for query in BAD_QUERIES:
            answer = await server.http.get(f"{AUDIT}/{query}")
            assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_REQUEST"), query


async def test_leaves_behind_the_end_are_none(database_url: str, redis_url: str) -> None:
    async with serve_web(database_url, redis_url) as server:
        answer = await server.http.get(f"{AUDIT}/leaves?from=999999999999999000&to=999999999999999999")
        assert (answer.status_code, answer.text) == (200, "")


async def test_a_surrogate_in_the_query_is_no_failure(database_url: str, redis_url: str) -> None:
    async with serve_web(database_url, redis_url) as server:
        user = (await server.register())["userId"]
        answer = await server.http.get(f"{AUDIT}/proof?userId={user}&actionId=%ED%A0%80%FF")
        assert answer.status_code in {400, 404}


async def test_where_viewers_need_a_token_proofs_do_too(database_url: str, redis_url: str) -> None:
    async with serve_web(database_url, redis_url, anonymous=False) as server:
        ada = await server.register()
        await play(server, ada["userId"], ["level-1"])
        await seal(server.people.stores)
        params = {"userId": ada["userId"], "actionId": "level-1"}
        assert (await server.http.get(f"{AUDIT}/proof", params=params)).status_code == 401
        headers = {"authorization": f"Bearer {ada['accessToken']}"}
        assert (await server.http.get(f"{AUDIT}/proof", params=params, headers=headers)).status_code == 200
        assert (await server.http.get(f"{AUDIT}/checkpoint")).status_code == 200


async def test_a_token_that_is_not_valid_is_refused(database_url: str, redis_url: str) -> None:
    async with serve_web(database_url, redis_url) as server:
        answer = await server.http.get(f"{AUDIT}/proof?userId=x", headers={"authorization": "Bearer no"})
        assert answer.status_code == 401


async def test_without_a_key_nothing_is_signed(database_url: str, redis_url: str) -> None:
    async with serve_web(database_url, redis_url, signer=None) as server:
        for path in ("checkpoint", "key", f"proof?userId={uuid4()}&actionId=a"):
            answer = await server.http.get(f"{AUDIT}/{path}")
            assert (answer.status_code, answer.json()["detail"]) == (404, transparency.NO_KEY.detail)
