"""`scoreboard users import` and `tokens`, as people call them, on real stores."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.cli.running import Command, is_right, names
from tests.operations.people import PASSWORD

PEOPLE = 120  # of an import that is interrupted: four seconds of hashing
ADA = b"username,email,password\nAda,ada@example.org,correct horse battery\n"


def test_tokens_that_can_not_be_written_are_one_line(command: Command, tmp_path: Path) -> None:
    """A folder that is not there: exit 2; else the file has a line for each."""
    refused = command("tokens", "--count", "1", "--output", str(tmp_path / "nothere" / "tokens"))
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert "can't be written: No such file" in refused.err
    assert command("tokens", "--count", "2", "--output", str(tmp_path / "tokens")).code == 0
    assert (tmp_path / "tokens").read_text().count("\n") == 2
    assert command("tokens", "--count", "2", "--output", "-").out.count("\n") == 2


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


def test_each_refused_line_is_printed_and_the_others_are_imported(
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


def test_an_absent_file_is_an_error_of_one_line(command: Command, tmp_path: Path) -> None:
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
    """An empty file is an error: one line, exit 1."""
    refused = command("import", "-", stdin=content)
    assert (refused.code, refused.out, refused.err) == (1, "", "scoreboard: there are no users in standard input\n")


def test_of_two_people_with_one_name_the_second_is_refused(command: Command, environment: dict[str, str]) -> None:
    """A class with two Toms: the first has the account, and the second is named with the line; exit 1."""
    rows = b"username,email,password\nTom1,a@x.example,drei-alte-elche\nTom1,b@x.example,vier-alte-elche\n"
    for counted in ("1 created, 0 were there, 1 refused\n", "0 created, 1 were there, 1 refused\n"):
        done = command("import", "-", stdin=rows)
        assert (done.code, done.out) == (1, counted)
        assert done.err == "line 3: username is taken, by a user with another e-mail address\n"
    assert is_right(environment, "drei-alte-elche", "Tom1")


def test_a_guessed_encoding_and_ignored_columns_are_printed(
    command: Command, environment: dict[str, str], tmp_path: Path
) -> None:
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
