"""The commands of the transparency log, against a server whose database is tampered with between two checks."""

import json
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio

from scoreboard.cli import main as cli
from scoreboard.domain.merkle import leaf_hash
from scoreboard.drivers.stores import Stores
from scoreboard.operations.admin.verify import log_differences
from scoreboard.security.checkpoints import LogSigner
from scoreboard.storage.postgres import users
from tests.cli.running import Result, Stream, unchanged_logging
from tests.storage.seeds import Scribe, claim, connection
from tests.storage.test_sealing import seal_all
from tests.web.site import LOG_SIGNER, WebServer, serve_web

Run = Callable[..., Any]


@pytest.fixture
async def server(database_url: str, redis_url: str) -> AsyncIterator[WebServer]:
    async with serve_web(database_url, redis_url) as server:
        yield server


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `scoreboard audit …` (or `verify`) in a thread, beside the server, and returns its result."""

    def command(*arguments: str) -> Result:
        out, err = Stream(), Stream()
        words = arguments if arguments[0] == "verify" else ("audit", *arguments)
        with monkeypatch.context() as patched, unchanged_logging():
            for name, value in (("stdout", out), ("stderr", err), ("argv", ["scoreboard", *words])):
                patched.setattr(sys, name, value)
            try:
                cli.main()
                code = 0
            except SystemExit as ended:
                code = int(ended.code or 0)
        return Result(code, out.text, err.text)

    async def run(*arguments: str) -> Result:
        return await trio.to_thread.run_sync(command, *arguments)

    return run


async def play(server: WebServer, user: str, *action_ids: str) -> None:
    async with connection(server.people.stores) as conn:
        await Scribe(conn, uuid4().int >> 66).record([claim(UUID(user), action_id=one) for one in action_ids])
    await seal_all(server.people.stores)


def url_of(server: WebServer) -> str:
    return str(server.http.base_url)


async def unlock(stores: Stores) -> None:
    """What the tables' owner can do."""
    for table in ("log_leaves", "log_nodes", "log_checkpoints", "audit_events"):
        await stores.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")


async def test_a_servers_log_and_one_action_are_checked(server: WebServer, run: Run) -> None:
    user = (await server.register())["userId"]
    await play(server, user, "level-1", "level-2")
    result = await run(
        "check", url_of(server), "--key", str(LOG_SIGNER.verifier), "--user", user, "--action", "level-2"
    )
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert all(line.startswith("ok: ") for line in lines)
    assert lines[0] == "ok: the checkpoint of 2 records is signed by scores.example"
    assert lines[-1] == "ok: the record is number 1 of 2 in this tree"


async def test_a_saved_proof_is_checked_without_the_server(server: WebServer, run: Run, tmp_path: Path) -> None:
    user = (await server.register())["userId"]
    await play(server, user, "level-1", "level-2")
    answer = await server.http.get("/api/v1/audit/proof", params={"userId": user, "actionId": "level-1"})
    file = tmp_path / "proof.json"
    file.write_bytes(answer.content)
    key = str(LOG_SIGNER.verifier)
    assert (await run("check", str(file), "--key", key, "--user", user, "--action", "level-1")).code == 0
    without = await run("check", str(file))
    assert (without.code, "signature is not checked" in without.err) == (0, True)
    assert (await run("check", str(file), "--key", key, "--user", user, "--action", "level-2")).code == 1
    forged = await run("check", str(file), "--key", str(LogSigner("scores.example", b"f" * 32).verifier))
    assert forged.code == 1
    assert "FAILED: the checkpoint is not signed by scores.example" in forged.out
    file.write_bytes(answer.content.replace(b'\\"points\\":10', b'\\"points\\":99'))
    assert "FAILED: the record is not number 0 of 2" in (await run("check", str(file), "--key", key)).out
    file.write_text("{}")
    assert (await run("check", str(file))).out == f"FAILED: {file} has no proof in it\n"


async def test_a_log_that_grew_is_checked_against_what_was_seen(server: WebServer, run: Run, tmp_path: Path) -> None:
    user = (await server.register())["userId"]
    state = tmp_path / "log.json"
    first = await run("check", url_of(server), "--state", str(state))  # an empty log
    assert (first.code, "own key is believed" in first.err) == (0, True)
    for number in range(3):
        await play(server, user, f"{number}", f"{number}-b")
        result = await run("check", url_of(server), "--state", str(state))
        assert (result.code, result.err) == (0, "")
        size = number * 2
        assert f"ok: the {size} records that were signed before are the first of {size + 2}" in result.out
    assert [path.name for path in tmp_path.iterdir()] == ["log.json"]


async def test_a_database_that_went_back_is_proven_by_what_was_seen(
    server: WebServer, run: Run, tmp_path: Path
) -> None:
    """An older copy was restored: the tree went back with the rows, and only clients can know."""
    stores, state = server.people.stores, tmp_path / "log.json"
    user = (await server.register())["userId"]
    await play(server, user, "level-1", "level-2")
    await play(server, user, "level-3")
    assert (await run("check", url_of(server), "--state", str(state))).code == 0
    seen = state.read_text()
    await unlock(stores)
    for table in ("log_leaves", "log_nodes"):
        await stores.execute(f"DELETE FROM {table} WHERE first > 0")
    await stores.execute("DELETE FROM log_checkpoints WHERE size > 2")
    await stores.execute("DELETE FROM action_logs WHERE action_id = 'level-3'")
    found, _ = await log_differences(stores, [LOG_SIGNER.verifier])
    assert found == {}
    result = await run("check", url_of(server), "--state", str(state))
    assert result.code == 1
    assert "FAILED: the log went back: 3 records were signed, now there are 2" in result.out
    assert state.read_text() == seen
    assert (tmp_path / "log.json.conflict").exists()  # both are signed


async def test_two_views_of_one_log_are_found(server: WebServer, run: Run, tmp_path: Path) -> None:
    """The operator himself, who has the log's key, changes an action, builds the tree anew and signs it. The log even
    grew since."""
    stores, state = server.people.stores, tmp_path / "log.json"
    user = (await server.register())["userId"]
    await play(server, user, "level-1", "level-2", "level-3")
    assert (await run("check", url_of(server), "--state", str(state))).code == 0
    await unlock(stores)
    await stores.execute("TRUNCATE log_leaves, log_nodes, log_checkpoints")
    await stores.execute("UPDATE action_logs SET points_awarded = 1000 WHERE action_id = 'level-2'")
    await play(server, user, "level-4", "level-5")
    found, _ = await log_differences(stores, [LOG_SIGNER.verifier])
    assert found == {}  # whoever holds the key can make it whole
    result = await run("check", url_of(server), "--state", str(state))
    assert result.code == 1
    assert "FAILED: the log was rewritten: the 3 records" in result.out
    kept = json.loads((tmp_path / "log.json.conflict").read_text())
    assert kept["checkpoint"].startswith("scores.example\n5\n")


async def test_a_server_with_another_key_is_refused(server: WebServer, run: Run, tmp_path: Path) -> None:
    state = tmp_path / "log.json"
    other = LogSigner("scores.example", b"o" * 32)
    state.write_text(json.dumps({"key": str(other.verifier), "checkpoint": other.sign(0, bytes(32))}))
    result = await run("check", url_of(server), "--state", str(state))
    assert result.code == 1
    assert "is not signed by" in result.out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["check", "absent.json"], "can't be read"),
        (["check", "x", "--user", "1"], "belong together"),
        (["check", "x", "--key", "nonsense"], "no public key"),
        (["check", "http://127.0.0.1:1", "--key", str(LOG_SIGNER.verifier)], "does not answer"),
        (["check", "http://[", "--key", str(LOG_SIGNER.verifier)], "does not answer"),
        (["check", "x", "--state", "STATE"], "was not written by"),
    ],
)
async def test_what_cannot_be_checked_is_one_line(run: Run, tmp_path: Path, arguments: list[str], why: str) -> None:
    (tmp_path / "state").write_text("[]")
    result = await run(*[str(tmp_path / "state") if word == "STATE" else word for word in arguments])
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert why in result.err


async def test_an_action_that_is_not_in_the_log_is_one_line(server: WebServer, run: Run) -> None:
    user = (await server.register())["userId"]
    result = await run("check", url_of(server), "--user", user, "--action", "absent")
    assert result.code == 2
    assert "answers 404: The log does not have this action." in result.err


async def test_the_export_has_every_leaf_and_records_of_those_who_are_there(
    server: WebServer, run: Run, monkeypatch: pytest.MonkeyPatch, database_url: str, redis_url: str
) -> None:
    stores = server.people.stores
    ada, bob = (await server.register())["userId"], (await server.register("Bob"))["userId"]
    await play(server, ada, "level-1")
    await play(server, bob, "level-1", "level-2")
    await users.delete(stores, UUID(ada), "operator")
    await seal_all(stores)
    monkeypatch.setenv("SCOREBOARD_POSTGRES__URL", database_url)
    monkeypatch.setenv("SCOREBOARD_REDIS__URL", redis_url)
    result = await run("export")
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert [line["index"] for line in lines] == [0, 1, 2, 3]
    assert [line["record"] is None for line in lines] == [True, False, False, False]
    for line in lines[1:]:
        assert leaf_hash(line["record"].encode()).hex() == line["hash"]
    assert "level-1" not in result.out
    assert json.loads(lines[3]["record"])["event"] == "user_erased"


async def test_verify_counts_the_log_and_names_what_was_changed(
    server: WebServer, run: Run, monkeypatch: pytest.MonkeyPatch, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """With the key of the settings; no development keys are made for it."""
    user = (await server.register())["userId"]
    await play(server, user, "level-1", "level-2")
    monkeypatch.setenv("SCOREBOARD_POSTGRES__URL", database_url)
    monkeypatch.setenv("SCOREBOARD_REDIS__URL", redis_url)
    monkeypatch.setenv("SCOREBOARD_EMBEDDED__DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("SCOREBOARD_SECURITY__LOG_KEYS__A", b64encode(bytes(32)).decode())
    monkeypatch.setenv("SCOREBOARD_SECURITY__LOG_NAME", "scores.example")
    result = await run("verify")
    counted = "log: 2 records compared (0 of erased users, 0 removed by age), 1 checkpoints, {} differences"
    assert counted.format(0) in result.out.splitlines()
    await server.people.stores.execute("UPDATE action_logs SET points_awarded = 1000 WHERE action_id = 'level-2'")
    result = await run("verify")
    assert result.code == 1
    assert counted.format(1) in result.out.splitlines()
    assert f"of user {user}: is not the record that was sealed" in result.out
    assert not (tmp_path / "data").exists()
