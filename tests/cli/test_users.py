"""`scoreboard users …`, as people call it: on real stores, mostly in this process, on a terminal and with Ctrl-C in one
of their own."""

import io
import json
import logging
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import structlog

from scoreboard.cli import main as cli
from scoreboard.embedded.stack import Endpoints
from scoreboard.security import passwords
from tests.conftest import database, in_asyncio, resp
from tests.operations.people import CHEAP, PASSWORD

NEW = "battery staple correct"
PEOPLE = 120  # of an import that is interrupted: four seconds of hashing
ADA = b"username,email,password\nAda,ada@example.org,correct horse battery\n"


@dataclass
class Result:
    code: int
    out: str
    err: str


class Stream(io.TextIOWrapper):
    """Standard input or output that is a file."""

    def __init__(self, content: bytes = b"") -> None:
        self.content = io.BytesIO(content)
        super().__init__(self.content, encoding="utf-8", write_through=True)

    @property
    def text(self) -> str:
        return self.content.getvalue().decode()


Command = Callable[..., Result]


@pytest.fixture(scope="module")
def environment(
    embedded_servers: Endpoints, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Settings that lead to a database of this module's."""
    assert resp(embedded_servers.redis_url, "FLUSHALL") == b"+OK"
    with database(embedded_servers.postgres_url, migrated_template) as url:
        yield {
            "SCOREBOARD_POSTGRES__URL": url,
            "SCOREBOARD_REDIS__URL": embedded_servers.redis_url,
            "SCOREBOARD_EMBEDDED__DATA_DIR": str(tmp_path_factory.mktemp("keys")),
        }


@contextmanager
def unchanged_logging() -> Iterator[None]:
    """Commands say where logs go: afterwards they go where they went."""
    config, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        structlog.configure(**config)
        root.handlers[:] = handlers
        root.setLevel(level)


@pytest.fixture
def command(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command and returns how it ended. Nobody is there at first."""
    execute(environment, "DELETE FROM users", "DELETE FROM username_skeletons")

    def run(*arguments: str, stdin: bytes = b"") -> Result:
        given, out, err = Stream(stdin), Stream(), Stream()
        with monkeypatch.context() as patched, patch.object(passwords, "_HASHER", CHEAP), unchanged_logging():
            for name, value in environment.items():
                patched.setenv(name, value)
            for name, stream in (
                ("stdin", given),
                ("stdout", out),
                ("stderr", err),
                ("argv", ["scoreboard", "users", *arguments]),
            ):
                patched.setattr(sys, name, stream)
            with pytest.raises(SystemExit) as ended:
                cli.main()
        return Result(int(ended.value.code or 0), out.text, err.text)

    return run


def execute(environment: dict[str, str], *statements: str) -> list[tuple[Any, ...]]:
    """Runs statements; the rows of the last one."""
    import asyncpg

    async def run() -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(environment["SCOREBOARD_POSTGRES__URL"])
        try:
            rows = [await connection.fetch(statement) for statement in statements][-1]
        finally:
            await connection.close()
        return [tuple(row) for row in rows]

    return in_asyncio(run)


def names(environment: dict[str, str]) -> list[str]:
    return [row[0] for row in execute(environment, 'SELECT username FROM users ORDER BY username COLLATE "C"')]


def is_right(environment: dict[str, str], password: str, name: str = "Ada") -> bool:
    ((stored,),) = execute(
        environment, f"SELECT password_hash FROM credentials JOIN users ON id = user_id WHERE username = '{name}'"
    )
    return passwords.verify(stored, password)


# ---- create and password --------------------------------------------------------------------------------------------


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


def test_tokens_that_can_not_be_written_are_one_line(command: Command, tmp_path: Path) -> None:
    """A folder that is not there: exit 2; else the file has a line for each."""
    refused = command("tokens", "--count", "1", "--output", str(tmp_path / "nothere" / "tokens"))
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert "can't be written: No such file" in refused.err
    assert command("tokens", "--count", "2", "--output", str(tmp_path / "tokens")).code == 0
    assert (tmp_path / "tokens").read_text().count("\n") == 2
    assert command("tokens", "--count", "2", "--output", "-").out.count("\n") == 2


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


# ---- rename, delete, list -------------------------------------------------------------------------------------------


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


# ---- import ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "arguments"),
    [
        ("people.csv", ADA, ()),
        ("PEOPLE.CSV", ADA, ()),
        ("people.txt", ADA, ()),
        ("people", ADA, ("--format", "csv")),
        ("people.csv", ADA.replace(b",", b";").decode().encode("utf-8-sig"), ()),
        ("people.csv", ADA.replace(b",", b"\t").decode().encode("utf-16"), ()),
        ("people.csv", ADA.decode().encode("utf-16-le"), ()),
        ("people.csv", ADA.decode().encode("cp500"), ("--encoding", "cp500")),
        ("-", ADA, ()),
        ("-", b'{"username": "Ada", "email": "ada@example.org", "password": "correct horse battery"}', ()),
        (
            "-",
            b'[{"username": "Ada", "email": "ada@example.org", "password": "correct horse battery"}]',
            ("--format", "json"),
        ),
    ],
)
def test_files_of_many_kinds_are_imported(
    command: Command, environment: dict[str, str], tmp_path: Path, name: str, content: bytes, arguments: tuple[str, ...]
) -> None:
    """By name or by content, from a file or from standard input."""
    path = name
    if name != "-":
        path = str(tmp_path / name)
        Path(path).write_bytes(content)
    done = command("import", path, *arguments, stdin=content)
    assert (done.code, done.out, done.err) == (0, "1 created, 0 were there, 0 refused\n", "")
    again = command("import", path, *arguments, stdin=content)
    assert (again.code, again.out) == (0, "0 created, 1 were there, 0 refused\n")
    assert names(environment) == ["Ada"]
    assert is_right(environment, PASSWORD)


def test_each_refused_line_is_told_and_the_others_are_imported(
    command: Command, environment: dict[str, str], tmp_path: Path
) -> None:
    """Hundreds of them: one line each with its number, in their order; exit 1; no line of a file commands the
    terminal."""
    rows = [f"Ada {number},{number}@example.org,{'short' if number % 3 else PASSWORD}" for number in range(600)]
    bad = [
        "NUL\x00,n@example.org," + PASSWORD,
        "esc\x1b[31m,e@example.org," + PASSWORD,
        'quo"te,"open',
        "Ada 0,0@example.org," + PASSWORD,
    ]
    path = tmp_path / "people.csv"
    path.write_text("\n".join(["Username,E-Mail,PASSWORD", *rows, *bad]), newline="")
    done = command("import", str(path))
    assert (done.code, done.out) == (1, "200 created, 1 were there, 403 refused\n")
    told = [int(line.removeprefix("line ").partition(":")[0]) for line in done.err.splitlines()]
    assert told == [number + 2 for number in range(600) if number % 3] + [602, 603, 604]
    assert "\x1b" not in done.err
    assert len(names(environment)) == 200


@pytest.mark.parametrize(
    ("content", "arguments", "why"),
    [
        (b"Ada,ada@example.org,secret secret\n", (), "lacks"),
        (b"username,email\n", (), "lacks password"),
        (b"username,email,password,Password\n", (), "twice"),
        (ADA, ("--encoding", "klingon"), "no encoding"),
        (b"\xc3\xa9" + ADA, ("--encoding", "ascii"), "not ascii"),
        (b"\xef\xbb\xbf" + ADA + b"\xe9", (), "not utf-8"),
        (b"\xff\xfe" + ADA.decode().encode("utf-16-le") + b"x", (), "not utf-16"),
    ],
)
def test_a_file_that_can_not_be_read_is_refused_in_one_line(
    command: Command, tmp_path: Path, content: bytes, arguments: tuple[str, ...], why: str
) -> None:
    """With what is wrong, and exit 1."""
    path = tmp_path / "people.csv"
    path.write_bytes(content)
    refused = command("import", str(path), *arguments)
    assert (refused.code, refused.out, refused.err.count("\n")) == (1, "", 1)
    assert why in refused.err


def test_a_file_that_is_not_there_is_told_in_one_line(command: Command, tmp_path: Path) -> None:
    """A file that is not there, a folder, no name at all: exit 2, as for a setting."""
    for path, why in (
        (str(tmp_path / "nothere.csv"), "No such file"),
        (str(tmp_path), "Is a directory"),
        ("", "can't be read"),
    ):
        refused = command("import", path)
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
        assert why in refused.err


@pytest.mark.parametrize("content", [b"", b"\n", b"username,email,password\n", b"\xef\xbb\xbf", b"[]"])
def test_a_file_without_users_is_no_success(command: Command, content: bytes) -> None:
    """Whoever imports an empty file has taken the wrong one: one line, exit 1."""
    refused = command("import", "-", stdin=content)
    assert (refused.code, refused.out, refused.err) == (1, "", "scoreboard: there are no users in standard input\n")


def test_of_two_people_with_one_name_the_second_is_told(command: Command, environment: dict[str, str]) -> None:
    """A class with two Toms: the first has the account, and the second is named with the line; exit 1."""
    rows = b"username,email,password\nTom1,a@x.example,drei-alte-elche\nTom1,b@x.example,vier-alte-elche\n"
    for counted in ("1 created, 0 were there, 1 refused\n", "0 created, 1 were there, 1 refused\n"):
        done = command("import", "-", stdin=rows)
        assert (done.code, done.out) == (1, counted)
        assert done.err == "line 3: username is taken, by a user with another e-mail address\n"
    assert is_right(environment, "drei-alte-elche", "Tom1")


def test_what_is_guessed_or_not_read_is_told(command: Command, environment: dict[str, str], tmp_path: Path) -> None:
    """A file in Windows' encoding is read, and said to be; so are columns that mean nothing here."""
    path = tmp_path / "people.csv"
    path.write_bytes(
        "Klasse;Username;E-Mail;Password\r\n7b;Zo\u00eb;zoe@example.org;correct horse battery\r\n".encode("cp1252")
    )
    done = command("import", str(path))
    assert (done.code, done.out) == (0, "1 created, 0 were there, 0 refused\n")
    assert done.err.count("\n") == 2
    assert "Windows-1252" in done.err
    assert "Klasse" in done.err
    assert names(environment) == ["Zo\u00eb"]


def test_an_interrupted_import_goes_on_when_it_is_repeated(
    command: Command, environment: dict[str, str], tmp_path: Path
) -> None:
    """Ctrl-C ends it with one line that says how far it came; those created are there, and the same command creates the
    rest."""
    path = tmp_path / "people.csv"
    path.write_text(
        "username,email,password\n"
        + "".join(f"Ada {number},{number}@example.org,{PASSWORD}\n" for number in range(PEOPLE))
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "scoreboard", "users", "import", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | environment,
        text=True,
    )
    while process.poll() is None and not names(environment):
        threading.Event().wait(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    assert err.startswith("scoreboard: interrupted: ")
    assert err.count("\n") == 1
    there = len(names(environment))
    assert 0 < there < PEOPLE
    done = command("import", str(path))
    assert (done.code, done.out) == (0, f"{PEOPLE - there} created, {there} were there, 0 refused\n")
