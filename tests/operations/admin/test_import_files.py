"""Files of users as people have them: whatever is in one, each line comes out as a user or as what is wrong with it."""

import csv
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain.errors import Refusal
from scoreboard.operations.admin.import_files import Decoded, UserRecord, decode, detect_csv, parse_users

HEADER = "username,email,password,avatarUrl\n"
ADA = UserRecord("Ada", "ada@example.org", "correct horse")
ZOE = UserRecord("Zo\u00eb", "zoe@example.org", "correct horse")


def read(text: str, *, is_csv: bool = True) -> list[tuple[int, UserRecord | str]]:
    people = parse_users(text, is_csv=is_csv)
    assert not isinstance(people, Refusal), people
    return list(people.lines)


def numbers(lines: list[tuple[int, UserRecord | str]]) -> tuple[list[int], list[int]]:
    """Of those who were read, and of those who were refused."""
    return [number for number, who in lines if isinstance(who, UserRecord)], [
        number for number, who in lines if isinstance(who, str)
    ]


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1"]
)
@pytest.mark.parametrize("form", ["csv", "json"])
def test_files_are_read_in_the_encodings_that_programs_save(encoding: str, form: str) -> None:
    """With and without a byte order mark; letters beyond ASCII come out right."""
    line = json.dumps({"username": ZOE.username, "email": ZOE.email, "password": ZOE.password}, ensure_ascii=False)
    text = line if form == "json" else "username,email,password\r\nZo\u00eb,zoe@example.org,correct horse\r\n"
    decoded = decode(text.encode(encoding))
    assert isinstance(decoded, Decoded)
    assert decoded.is_guessed == (encoding in {"cp1252", "latin-1"})
    assert [who for _, who in read(decoded.text, is_csv=form == "csv")] == [ZOE]


def test_an_encoding_that_is_said_is_taken() -> None:
    """Whatever the file looks like; one that there is not, or that does not fit, is refused."""
    decoded = decode("\u0416".encode("cp1251"), "cp1251")
    assert decoded == Decoded("\u0416", "cp1251")
    assert isinstance(decode(b"\xff", "ascii"), Refusal)
    assert isinstance(decode(b"a", "klingon"), Refusal)
    assert isinstance(decode(b"a", "a\u0000b"), Refusal)
    assert isinstance(decode(b"a", "hex"), Refusal)


@pytest.mark.parametrize("form", ["csv", "json"])
def test_a_few_bytes_of_another_encoding_cost_their_line(form: str) -> None:
    """In a file that is UTF-8 else."""
    rows = [
        f'{{"username": "{name}", "email": "a@b", "password": "x"}}' if form == "json" else f"{name},a@b,x"
        for name in ("Zo\u00eb", "?", "Ren\u00e9")
    ]
    raw = "\n".join(rows).encode().replace(b"?", b"\xe9")
    decoded = decode(raw if form == "json" else b"username,email,password\n" + raw)
    assert isinstance(decoded, Decoded)
    assert decoded.encoding == "utf-8"
    good, bad = numbers(read(decoded.text, is_csv=form == "csv"))
    assert (len(good), len(bad)) == (2, 1)


@pytest.mark.parametrize(
    "header",
    [
        *(
            "username,email,password",
            "USERNAME,EMAIL,PASSWORD",
            " User Name , E-Mail , Password ",
            '"username","email","password"',
        ),
        *(
            "username;email;password",
            "username\temail\tpassword",
            "User_Name;e-mail;PASSWORD",
            "\ufeffusername,email,password",
        ),
        *("sep=;\nusername;email;password", "SEP=|\nusername|email|password", "\n\nusername,email,password"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_headers_are_read_as_people_write_them(header: str, end: str) -> None:
    """In any case, with spaces and hyphens, with commas, semicolons, tabs or what its first line names; with every end
    of lines."""
    delimiter = next(mark for mark in ";\t|," if mark in header.rpartition("\n")[2])
    text = header.replace("\n", end) + end + delimiter.join(("Ada", "ada@example.org", "correct horse")) + end
    assert [who for _, who in read(text)] == [ADA]


@pytest.mark.parametrize(
    "text",
    [
        "Ada,ada@example.org,correct horse\n",
        "username,email\n",
        "username,email,password,e-mail\n",
        'username,"email,password\n',
        "{}\n",
        "x" * 200_000,
    ],
)
def test_a_header_that_does_not_tell_the_columns_is_refused(text: str) -> None:
    """Lacking, twice, or no CSV."""
    assert isinstance(parse_users(text, is_csv=True), Refusal)


def test_columns_in_any_order_and_others_beside_them() -> None:
    """What is not read is told; a picture may be there or not; cells that lack or are too many are refused by their
    line."""
    people = parse_users(
        "Class;PASSWORD;Avatar URL;username;email\n"
        "7b;correct horse;;Ada;ada@example.org\n"
        "7b;correct horse;https://example.org/a.png;Ada;ada@example.org;;\n"
        ";;;;\n\n"
        "7b;correct horse;;Ada\n"
        "7b;correct horse;;Ada;ada@example.org;more\n"
        "7b;;;Ada;ada@example.org\n",
        is_csv=True,
    )
    assert not isinstance(people, Refusal)
    assert people.ignored == ("Class",)
    lines = list(people.lines)
    assert numbers(lines) == ([2, 3], [6, 7, 8])
    assert lines[0][1] == ADA
    assert lines[1][1] == UserRecord("Ada", "ada@example.org", "correct horse", "https://example.org/a.png")
    assert lines[2][1] == "has no email"


@pytest.mark.parametrize("code", [0x2028, 0x2029, 0x85, 0x0B, 0x0C, 0x1C, 0x1E, 0x00])
@pytest.mark.parametrize("is_csv", [True, False])
def test_no_other_character_ends_a_line(code: int, is_csv: bool) -> None:
    """U+2028 and its like, and NUL, may stand in a cell or in a JSON text; numbers of lines stay right."""
    password = f"correct{chr(code)}horse"
    row = f"Ada,ada@example.org,{password},"
    if not is_csv:
        row = json.dumps(
            {"username": "Ada", "email": "ada@example.org", "password": password}, ensure_ascii=code < 0x20
        )
    text = f"{HEADER if is_csv else ''}{row}\n{row}\n"
    assert [who.password if isinstance(who, UserRecord) else who for _, who in read(text, is_csv=is_csv)] == [
        password,
        password,
    ]


@pytest.mark.parametrize(
    ("bad", "refused"),
    [
        ('"Ada,a@example.org,correct horse,', [3]),
        ('Ada,"a@example.org,correct horse,', [3]),
        ('"Ada"x,a@example.org,correct horse,', [3]),
        ('"A\nda",a@example.org,correct horse,', [3, 4]),
        ('"Ada\n",a@example.org,"\n\n"', [3, 4, 6]),
        (f"{'x' * (csv.field_size_limit() + 1)},a@example.org,correct horse,", [3]),
        (f'"{"x" * (csv.field_size_limit() + 1)}",a@example.org,correct horse,', [3]),
        (f'"{"x" * (csv.field_size_limit() + 1)},a@example.org,correct horse,', [3]),
    ],
)
def test_a_bad_record_costs_its_own_lines(bad: str, refused: list[int]) -> None:
    """Quotes without an end, text after a quote, cells of several lines, cells beyond csv's limit: all other lines are
    read."""
    good = "Ada,ada@example.org,correct horse,\n"
    before = good * 1
    after = good * 150
    lines = read(HEADER + before + bad + "\n" + after)
    read_lines, refused_lines = numbers(lines)
    assert refused_lines == refused
    assert read_lines == [2, *range(4 + bad.count("\n"), 154 + bad.count("\n"))]


def test_quoted_cells_may_hold_separators_and_quotes() -> None:
    """As every program writes them."""
    lines = read('username;email;password\n"Ada; ""L""";ada@example.org;"a;b\tc,d ""e"""\n')
    assert lines == [(2, UserRecord('Ada; "L"', "ada@example.org", 'a;b\tc,d "e"'))]


def test_a_json_array_is_read_entry_by_entry() -> None:
    """Over any number of lines; numbers count entries. What is no user costs an entry, what is no JSON all that
    follows."""
    whole = json.dumps(
        [{"username": "Ada", "email": "ada@example.org", "password": "correct horse"}, 7, {"username": "Eve"}], indent=2
    )
    people = parse_users("\ufeff\n" + whole, is_csv=False)
    assert not isinstance(people, Refusal)
    assert people.unit == "entry"
    lines = list(people.lines)
    assert (lines[0], numbers(lines)) == ((1, ADA), ([1], [2, 3]))
    ada = json.dumps({"username": "Ada", "email": "ada@example.org", "password": "correct horse"})
    for text, expected in (
        ("[]", ([], [])),
        ("[ ]\n", ([], [])),
        ("[", ([], [1])),
        (f"[{ada}", ([1], [2])),
        (f"[{ada},", ([1], [2])),
        (f"[{ada},]", ([1], [2])),
        (f"[{ada} {ada}]", ([1], [2])),
        (f"[{ada},{{]", ([1], [2])),
        (f"[{ada}] {ada}", ([1], [2])),
        (f"[{ada}, {'[' * 100_000}]", ([1], [2])),
        (f"[{ada}, {'9' * 10_000}]", ([1], [2])),
    ):
        assert numbers(read(text, is_csv=False)) == expected, text[:80]


def test_one_object_over_several_lines_is_one_user() -> None:
    """As programs print it; one in a line is a line as ever, and several such objects are none that JSON knows."""
    ada = {"username": "Ada", "email": "ada@example.org", "password": "correct horse"}
    for indent in (None, 2):
        for end in ("\n", "\r\n"):
            text = json.dumps(ada, indent=indent).replace("\n", end) + end
            assert read(text, is_csv=False) == [(1, ADA)]
    whole = parse_users(json.dumps({"users": [ada]}, indent=1), is_csv=False)
    assert not isinstance(whole, Refusal)
    assert whole.unit == "entry"
    assert numbers(list(whole.lines)) == ([], [1])
    assert numbers(read(json.dumps(ada, indent=1) + json.dumps(ada, indent=1), is_csv=False))[0] == []
    assert numbers(read(json.dumps(ada) + "\n" + json.dumps(ada), is_csv=False)) == ([1, 2], [])


def test_a_json_line_that_is_wrong_costs_itself() -> None:
    """Not JSON, nested without end, a huge cell, the wrong types, an unknown field: the next line is read."""
    ada = json.dumps({"username": "Ada", "email": "ada@example.org", "password": "correct horse"})
    bad = [
        "{",
        "[" * 100_000,
        "7",
        "null",
        '{"username": "Ada"}',
        ada.replace('"Ada"', "7"),
        ada.replace("}", ', "role": "x"}'),
        "x" * 1_000_000,
    ]
    lines = read("\n".join(line for one in bad for line in (ada, one)) + "\r\n\r\n", is_csv=False)
    assert numbers(lines) == ([*range(1, 16, 2)], [*range(2, 17, 2)])


@pytest.mark.parametrize(
    ("name", "text", "is_csv"),
    [
        *(
            ("a.csv", "{", True),
            ("A.CSV", "[", True),
            ("a.tsv", "", True),
            ("a.json", "a,b", False),
            ("a.JSONL", "", False),
        ),
        *(("-", " \n[{}]", False), ("-", '\ufeff{"a": 1}', False), ("-", "username,email", True), ("people", "", True)),
    ],
)
def test_the_format_follows_from_the_name_or_the_content(name: str, text: str, is_csv: bool) -> None:
    """The name goes first."""
    assert detect_csv(name, text) is is_csv


@given(st.binary(max_size=300), st.booleans())
def test_no_file_raises(raw: bytes, is_csv: bool) -> None:
    """Whatever is in it."""
    decoded = decode(raw)
    if isinstance(decoded, Decoded):
        people = parse_users(decoded.text, is_csv=is_csv)
        assert isinstance(people, Refusal) or list(people.lines) is not None


@given(st.text(alphabet='",;\n\r\tab\x00\u2028[]{}', max_size=80))
def test_no_rows_raise(text: str) -> None:
    """Whatever stands under a right header; each line is told at most once, in order."""
    told = [number for number, _ in read("username,email,password\n" + text)]
    assert told == sorted(set(told))
