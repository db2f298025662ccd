"""`scoreboard server-keys …`: what is printed, what is stored, and what is refused. On real stores."""

import json

import pytest

from scoreboard.cli import server_keys as module
from scoreboard.security.server_keys import digest, key_id_of
from tests.cli.running import Command, Result, execute


@pytest.fixture
def run(command: Command, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `scoreboard server-keys …`, without the wait for nodes. There are no keys at first."""
    execute(environment, "DELETE FROM server_keys")
    monkeypatch.setattr(module, "PROPAGATION_SECONDS", 0)

    def run_group(*arguments: str) -> Result:
        return command(*arguments, group="server-keys")

    return run_group


def audited(environment: dict[str, str], key_id: str) -> list[str]:
    return [
        kind
        for kind, actor in execute(
            environment, f"SELECT kind, actor FROM audit_events WHERE details->>'key' = '{key_id}' ORDER BY id"
        )
        if actor == "operator"
    ]


def test_a_key_from_beginning_to_end(run: Command, environment: dict[str, str]) -> None:
    """It is printed alone and once, only its digest is stored, and each change is in the audit log."""
    made = run("create", "eu-1", "--scope", "scores", "--scope", "users")
    assert (made.code, made.err, made.out.count("\n")) == (0, "", 1)
    key = made.out.strip()
    key_id = key_id_of(key)
    assert key_id is not None
    ((stored, scopes),) = execute(environment, "SELECT secret_sha256, scopes FROM server_keys")
    assert (stored, scopes) == (digest(key), ["users", "scores"])

    rotated = run("rotate", "EU-1", "--overlap", "60")
    assert rotated.out.strip() != key
    assert key_id_of(rotated.out.strip()) == key_id
    ((stored, previous),) = execute(environment, "SELECT secret_sha256, previous_sha256 FROM server_keys")
    assert (stored, previous) == (digest(rotated.out.strip()), digest(key))

    (line,) = run("list").out.splitlines()
    assert line.split("\t")[:3] == [key_id, "eu-1", "users,scores"]
    assert line.split("\t")[4:] == ["-", "-", "overlap"]

    assert run("revoke", key_id).out == f"{key_id} is revoked\n"
    assert run("list").out == ""
    (shown,) = run("list", "--all", "--json").out.splitlines()
    assert (json.loads(shown)["state"], json.loads(shown)["name"]) == ("revoked", "eu-1")
    assert audited(environment, key_id) == ["server_key_created", "server_key_rotated", "server_key_revoked"]


def test_a_name_is_free_again_after_its_key_is_revoked(run: Command) -> None:
    """Among live keys a name is unique, whatever its case."""
    assert run("create", "eu-1", "--scope", "read").code == 0
    again = run("create", "EU-1", "--scope", "read")
    assert (again.code, again.out) == (1, "")
    assert "There is a key EU-1" in again.err
    assert run("revoke", "eu-1").code == 0
    assert run("create", "EU-1", "--scope", "read").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (("create", "a"), 2, "--scope"),
        (("create", "a", "--scope", "admin"), 2, "admin"),
        (("create", "", "--scope", "read"), 1, "name"),
        (("create", "a\nb", "--scope", "read"), 1, "name"),
        (("create", "a" * 81, "--scope", "read"), 1, "name"),
        (("create", "a", "--scope", "read", "--days", "0"), 2, "--days"),
        (("rotate", "nothing"), 1, "no live key nothing"),
        (("rotate", "a", "--overlap", "-1"), 2, "--overlap"),
        (("revoke", "nothing"), 1, "no live key nothing"),
    ],
)
def test_what_is_refused(run: Command, arguments: tuple[str, ...], code: int, why: str) -> None:
    """With a line that says why, and nothing on standard output."""
    refused = run(*arguments)
    assert (refused.code, refused.out) == (code, "")
    assert why in refused.err


def test_a_list_of_many_keys_is_read_in_pages(run: Command, environment: dict[str, str]) -> None:
    """Each key once, in the order in which they were made."""
    execute(
        environment,
        "INSERT INTO server_keys (id, name, scopes, secret_sha256, created_at) SELECT lpad(n::text, 12, '0'), n::text, "
        "'{read}', '', now() - (1200 - n) / 2 * interval '1 second' FROM generate_series(1, 1200) n",
    )
    ids = [line.split("\t")[0] for line in run("list").out.splitlines()]
    assert ids == [f"{n:012d}" for n in range(1, 1201)]
    full = run("create", "one more", "--scope", "read")
    assert (full.code, full.out) == (1, "")
    assert "There are 1000 keys" in full.err
