"""`scoreboard users …` for one user, and the list: on real stores, mostly in this process, on a terminal and with
Ctrl-C in one of their own."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

import pytest

from scoreboard.cli import main as cli
from tests.cli.running import Command, Result, execute, is_right, names, unchanged_logging
from tests.operations.people import PASSWORD

NEW = "battery staple correct"
ADA = b"username,email,password\nAda,ada@example.org,correct horse battery\n"


@pytest.mark.parametrize("line", [b"%s\n", b"%s\r\n", b"%s", b"\xef\xbb\xbf%s\n", b"%s\nanother line\n"])
def test_a_password_is_the_first_line_of_standard_input(
    command: Command, environment: dict[str, str], line: bytes
) -> None:
    """Without its end, and without a byte order mark."""
    created = command("create", "Ada", "ada@example.org", stdin=line % PASSWORD.encode())
    assert (created.code, created.err) == (0, "")
    assert execute(environment, "SELECT id::text FROM users") == [(created.out.strip(),)]
    assert is_right(environment, PASSWORD)


@pytest.mark.parametrize(
    ("arguments", "stdin", "why"),
    [
        (("create", "Ada", "ada@example.org"), b"", "is empty"),
        (("create", "Ada", "ada@example.org"), b"\n", "is empty"),
        (("create", "Ada", "ada@example.org"), b"\xef\xbb\xbf\r\n", "is empty"),
        (("create", "Ada", "ada@example.org"), b"caf\xe9 caf\xe9 caf\xe9\n", "not UTF-8"),
        (("create", "Ada", "ada@example.org"), "correct horse battery\n".encode("utf-16"), "not UTF-8"),
        (("create", "Ada", "ada@example.org"), b"x" * 10_000, "1024 characters"),
        (("create", "Ada", "ada@example.org"), b"1234567890\n", "most used"),
        (("create", "a@b", "nowhere"), PASSWORD.encode(), "username"),
        (("password", "Nobody"), PASSWORD.encode(), "no user Nobody"),
        (("password", "nobody@example.org"), PASSWORD.encode(), "no user"),
        (("password", "028e1b3b-469e-4c98-9ca1-1ae0b5657e30"), PASSWORD.encode(), "no user"),
        (("password", "Nobody\x1b[31m\nNobody"), PASSWORD.encode(), "no user Nobody\\x1b[31m\\nNobody"),
        (("rename", "Nobody", "Other"), b"", "no user"),
        (("delete", "Nobody", "--yes"), b"", "no user"),
    ],
)
def test_what_is_refused_is_one_line(command: Command, arguments: tuple[str, ...], stdin: bytes, why: str) -> None:
    """On standard error, with exit 1; nothing on standard output."""
    refused = command(*arguments, stdin=stdin)
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.count("\n") == 1
    assert why in refused.err


def test_arguments_that_are_no_text_are_refused(command: Command) -> None:
    """Bytes of another encoding in the command line never reach the database."""
    for arguments in (
        ("create", "A\udce9a", "a@example.org"),
        ("delete", "\udce9"),
        ("rename", "Ada", "\udce9da"),
        ("list", "--query", "\udce9"),
    ):
        refused = command(*arguments, stdin=PASSWORD.encode())
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
        assert "is not UTF-8" in refused.err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("create", "Ada", "ada@example.org"), "no password: standard input is closed"),
        (("password", "Ada"), "no password: standard input is closed"),
        (("delete", "Ada"), "standard input is closed; say --yes"),
        (("import", "-"), "no users: standard input is closed"),
    ],
)
def test_a_command_that_would_read_is_refused_when_standard_input_is_closed(
    environment: dict[str, str], arguments: tuple[str, ...], why: str
) -> None:
    """In one line, as in `scoreboard users delete Ada <&-`; the same when it is open for writing alone."""
    for closing in ("<&-", "0>/dev/null"):
        line = f"exec {sys.executable} -m scoreboard users {' '.join(arguments)} {closing}"
        ended = subprocess.run(
            ["sh", "-c", line], capture_output=True, env=os.environ | environment, text=True, timeout=60, check=False
        )
        assert (ended.returncode in {1, 2}, ended.stdout, ended.stderr.count("\n")) == (True, "", 1), ended.stderr
        assert ended.stderr.startswith("scoreboard: ")
        if closing == "<&-":
            assert ended.returncode == 1
            assert why in ended.stderr


def test_a_list_for_nobody_is_no_error(command: Command, environment: dict[str, str]) -> None:
    """`scoreboard users list >&-`."""
    assert command("create", "Ada", "ada@example.org", stdin=PASSWORD.encode()).code == 0
    line = f"exec {sys.executable} -m scoreboard users list >&-"
    ended = subprocess.run(
        ["sh", "-c", line], capture_output=True, env=os.environ | environment, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_user_is_given_another_password(command: Command, environment: dict[str, str]) -> None:
    """By name, address or id, in any case; the rules hold; all sessions end; a user who had no password has one."""
    assert command("create", "Ada", "ada@example.org", stdin=PASSWORD.encode()).code == 0
    ((user,),) = execute(environment, "SELECT id::text FROM users")
    session = (
        "INSERT INTO sessions (id, user_id, token_sha256, expires_at) "
        f"VALUES (gen_random_uuid(), '{user}', '', now() + interval '1 day')"
    )
    for number, who in enumerate(("ADA", "Ada@Example.org", user, " Ada ", " ADA@example.org", f" {user.upper()}")):
        execute(environment, session, session)
        changed = command("password", who, stdin=f"{NEW} {number}\n".encode())
        assert (changed.code, changed.out, changed.err) == (0, "Ada has another password; sessions ended: 2\n", "")
        assert is_right(environment, f"{NEW} {number}")
        assert execute(environment, "SELECT count(*) FROM sessions WHERE revoked_at IS NULL") == [(0,)]
    execute(environment, "DELETE FROM credentials")
    assert command("password", "Ada", stdin=NEW.encode()).code == 0
    assert is_right(environment, NEW)
    for wrong in ("short", "ada@example.org"):
        assert command("password", "Ada", stdin=wrong.encode()).code == 1
    assert is_right(environment, NEW)


def on_a_terminal(environment: dict[str, str], *arguments: str, typed: Sequence[tuple[bytes, str]] = ()) -> Result:
    """Runs a command on a terminal of its own, and types a line whenever it shows what is named; all that was shown is
    its output."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "scoreboard", "users", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | environment | {"PAGER": "cat"},
        start_new_session=True,
    )
    os.close(theirs)
    shown, at, lines = b"", 0, list(typed)
    with suppress(OSError):  # how Linux says that the other side is closed
        while chunk := os.read(ours, 1024):
            shown += chunk
            if lines and lines[0][0] in shown[at:]:
                at = len(shown)
                os.write(ours, lines.pop(0)[1].encode() + b"\n")
    os.close(ours)
    return Result(process.wait(30), shown.decode(), "")


def test_on_a_terminal_a_password_is_asked_for_without_echo(command: Command, environment: dict[str, str]) -> None:
    """Twice, until both are the same; nothing of it is shown. A list of users goes through the pager."""
    typed = [(b"Password: ", PASSWORD), (b"again: ", "another one"), (b"Password: ", PASSWORD), (b"again: ", PASSWORD)]
    created = on_a_terminal(environment, "create", "Ada", "ada@example.org", typed=typed)
    assert created.code == 0, created.out
    assert PASSWORD not in created.out
    assert "another one" not in created.out
    assert is_right(environment, PASSWORD)
    listed = on_a_terminal(environment, "list")
    assert (listed.code, listed.out.strip().count("\n")) == (0, 0)
    assert "\tAda\tada@example.org\t-\t" in listed.out


def test_a_user_is_renamed(command: Command, environment: dict[str, str]) -> None:
    """By name, address or id; a taken name or one against the rules is refused; how often it was renamed does not
    matter."""
    for name in ("Ada", "Grace"):
        assert command("create", name, f"{name}@example.org", stdin=PASSWORD.encode()).code == 0
    for number in range(12):
        assert command("rename", "ada@example.org", f"Ada {number}").code == 0
    renamed = command("rename", "Ada 11", "Lovelace")
    assert (renamed.code, renamed.out) == (0, "Ada 11 is called Lovelace\n")
    for taken in ("GRACE", "a@b", "ab"):
        refused = command("rename", "Lovelace", taken)
        assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert names(environment) == ["Grace", "Lovelace"]


def test_a_deleted_user_leaves_everything_consistent(
    command: Command, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No node runs: the board in Redis loses the user all the same, and `scoreboard verify` finds nothing. The name
    rests."""

    def verify() -> int:
        with monkeypatch.context() as patched, unchanged_logging():
            for name, value in environment.items():
                patched.setenv(name, value)
            patched.setattr(sys, "argv", ["scoreboard", "verify"])
            try:
                cli.main()
            except SystemExit as ended:
                return int(ended.code or 0)
        return 0

    for name in ("Ada", "Grace"):
        assert command("create", name, f"{name}@example.org", stdin=PASSWORD.encode()).code == 0
    execute(
        environment,
        "INSERT INTO scores (user_id, total_score, reached, version) SELECT id, 30, row_number() OVER (), 1 FROM users",
        "INSERT INTO action_keys (user_id, action_id, body_sha256) SELECT id, 'a', '' FROM users",
        "INSERT INTO action_logs (user_id, action_id, action_type, points_awarded, new_score, seq, signature)"
        " SELECT id, 'a', 'task_finish', 30, 30, 1, '' FROM users",
    )
    with monkeypatch.context() as patched, unchanged_logging():
        for name, value in environment.items():
            patched.setenv(name, value)
        patched.setattr(sys, "argv", ["scoreboard", "rebuild-board"])
        with pytest.raises(SystemExit):
            cli.main()
    assert verify() == 0
    asked = command("delete", "Ada", stdin=b"n\n")
    assert asked.code == 1
    assert "Ada <Ada@example.org>" in asked.err
    assert command("delete", "Ada", stdin=b"").code == 1
    assert names(environment) == ["Ada", "Grace"]
    deleted = command("delete", "Ada", stdin=b"y\n")
    assert (deleted.code, deleted.out) == (0, "Ada is deleted\n")
    assert verify() == 0
    assert names(environment) == ["Grace"]
    assert execute(environment, "SELECT count(*) FROM action_logs") == [(1,)]
    assert command("create", "Ada", "ada@example.org", stdin=PASSWORD.encode()).code == 1
    assert command("delete", "Grace", "--yes").code == 0
    assert verify() == 0


def test_users_are_listed_in_the_order_of_their_names(command: Command, environment: dict[str, str]) -> None:
    """All of however many pages there are, as lines or as JSON; a query finds parts of names and addresses, in any
    case, and ids."""
    execute(
        environment,
        "INSERT INTO users (username, email) SELECT 'user' || lpad(n::text, 4, '0'), 'u' || n || '@example.org'"
        " FROM generate_series(1, 1201) n",
        "INSERT INTO users (username, email, created_at) VALUES (E'Zo\u00eb\\x1b[31m\\t!', 'zoe@example.com', NULL)",
        "INSERT INTO scores (user_id, total_score, reached, version) "
        "SELECT id, 30, 1, 1 FROM users WHERE email = 'u7@example.org'",
    )
    lines = command("list").out.splitlines()
    assert [line.split("\t")[1] for line in lines] == [f"user{number:04}" for number in range(1, 1202)] + [
        "Zo\u00eb\\x1b[31m\\t!"
    ]
    assert lines[6].split("\t")[2:4] == ["u7@example.org", "30"]
    assert lines[7].split("\t")[3] == "-"
    listed = [json.loads(line) for line in command("list", "--json").out.splitlines()]
    assert len(listed) == 1202
    assert (listed[6]["score"], listed[-1]["username"]) == (30, "Zo\u00eb\x1b[31m\t!")
    found = [
        command("list", "--query", query).out.count("\n")
        for query in ("USER120", "EXAMPLE.COM", listed[3]["userId"], "nobody", "%")
    ]
    assert found == [2, 1, 1, 0, 0]


def test_a_reader_of_the_list_may_leave(command: Command, environment: dict[str, str]) -> None:
    """`scoreboard users list | head` is no error."""
    execute(
        environment,
        "INSERT INTO users (username, email) "
        "SELECT 'user' || n, 'u' || n || '@example.org' FROM generate_series(1, 5000) n",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "scoreboard", "users", "list"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | environment,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().count(b"\t") == 4
    process.stdout.close()
    assert (process.wait(30), process.stderr.read()) == (0, b"")
    process.stderr.close()


def test_a_role_is_given_and_taken(command: Command, environment: dict[str, str]) -> None:
    """By the operator, whom no rule refuses; the audit event names him. A role that does not exist is one line."""
    assert command("create", "Ada", "ada@example.org", stdin=PASSWORD.encode()).code == 0
    for role in ("admin", "viewer", "none"):
        given = command("role", "ada@example.org", role)
        assert (given.code, given.out, given.err) == (0, f"Ada has the role {role}\n", "")
        assert execute(environment, "SELECT coalesce(role, 'none') FROM users") == [(role,)]
    actors = "SELECT DISTINCT actor FROM audit_events WHERE kind = 'role_changed'"
    assert execute(environment, actors) == [("operator",)]
    assert command("role", "Nobody", "admin").code == 1
    refused = command("role", "Ada", "root")
    assert (refused.code, refused.out) == (2, "")
