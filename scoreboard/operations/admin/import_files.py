"""Parses files of users: CSV with a header, JSON Lines, a JSON array or one object, in any common encoding.

`decode` turns bytes into text, `parse_users` turns text into users. A line that can't be read does not end the import:
each line becomes its number and a UserRecord, or its number and what is wrong with it. Pure; called by `scoreboard
users import`.
"""

import codecs
import csv
import json
import re
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from scoreboard.domain.errors import Code, Refusal

SAMPLE_BYTES = 4096  # of a file without a BOM, in which UTF-16 is looked for
# share of bytes in every second place that are 0 in UTF-16 of mostly Latin text; elsewhere there are hardly any
UTF16_MIN_NUL_SHARE = 0.4
MAX_RECORD_LINES = 100  # of one CSV record: a quote that is still open then has no end
MAX_QUOTED_CHARACTERS = 60  # of what is wrong, in a message

# letters and digits of it → field
COLUMNS = {"username": "username", "email": "email", "password": "password", "avatarurl": "avatarUrl"}
REQUIRED = ("username", "email", "password")
DELIMITERS = (",", ";", "\t")

BOMS = (  # UTF-32's begins with UTF-16's
    *((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8-sig")),
    *((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")),
)
_LINE_END = re.compile(r"\r\n|\r|\n")  # no other: U+2028 may stand in a cell
_DELIMITER_LINE = re.compile(r"sep=([,;|\t])\s*", re.IGNORECASE)  # what spreadsheets write before the header
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # bytes that surrogateescape has let through


class UserRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A user of a file: a JSON object, or a row under a CSV header of these names."""

    username: str
    email: str
    password: str
    avatarUrl: str | None = None

    def __repr__(self) -> str:
        return f"UserRecord({self.username!r})"  # never the password


class Decoded(NamedTuple):
    """A file's text. `is_guessed`: nothing in the file says that this is its encoding."""

    text: str
    encoding: str
    is_guessed: bool = False


class ParsedUsers(NamedTuple):
    """The content of a file. `unit`: what the numbers count. `ignored`: columns that are not read."""

    unit: str
    lines: Iterator[tuple[int, UserRecord | str]]
    ignored: tuple[str, ...] = ()


# ---- bytes to text --------------------------------------------------------------------------------------------------


def decode(raw: bytes, encoding: str | None = None) -> Decoded | Refusal:
    """The file's text. The encoding is the given one, else that of a BOM, else UTF-16 if the zero bytes show it, else
    UTF-8, else Windows-1252, which is Latin-1 with more letters. A Refusal when the text can't be decoded.

    A UTF-8 file may have a few other bytes. They become lone surrogates, and `parse_users` refuses their lines.
    """
    if encoding is None:
        encoding = next((name for bom, name in BOMS if raw.startswith(bom)), None) or _detect_utf16(raw[:SAMPLE_BYTES])
    if encoding is not None:
        try:
            return Decoded(raw.decode(encoding), encoding)
        except UnicodeError as exc:
            return _refused(f"the file is not {encoding}: {str(exc)[:MAX_QUOTED_CHARACTERS]}")
        except (LookupError, ValueError):
            return _refused(f"there is no encoding {encoding!r}")
    text = raw.decode("utf-8", "surrogateescape")
    wrong = len(_NOT_UTF8.findall(text))
    if wrong and wrong >= sum(character > "\x7f" for character in text) - wrong:
        return Decoded(raw.decode("cp1252", "replace"), "Windows-1252", is_guessed=True)
    return Decoded(text, "utf-8")


def _detect_utf16(sample: bytes) -> str | None:
    first, second = sample[0::2], sample[1::2]
    if not second:
        return None
    zeros = first.count(0) / len(first), second.count(0) / len(second)
    if zeros[1] > UTF16_MIN_NUL_SHARE > zeros[0]:
        return "utf-16-le"
    return "utf-16-be" if zeros[0] > UTF16_MIN_NUL_SHARE > zeros[1] else None


def _refused(detail: str) -> Refusal:
    return Refusal(Code.INVALID_REQUEST, detail)


# ---- text to users --------------------------------------------------------------------------------------------------


def detect_csv(name: str, text: str) -> bool:
    """Whether a file is CSV: by the suffix of its name, else by the text, since JSON begins with a bracket."""
    suffix = name.lower().rpartition(".")[2]
    if suffix in {"csv", "tsv"}:
        return True
    return suffix not in {"json", "jsonl", "ndjson"} and not text.lstrip("\ufeff \t\r\n").startswith(("{", "["))


def parse_users(text: str, *, is_csv: bool) -> ParsedUsers | Refusal:
    """The users in the text. A Refusal when a CSV header does not tell what the columns are."""
    text = text.removeprefix("\ufeff")
    if is_csv:
        return _parse_csv(_LINE_END.split(text))
    if text.lstrip(" \t\r\n").startswith("["):
        return ParsedUsers("entry", _parse_json_array(text))
    if (one := _parse_single_object(text)) is not None:
        return ParsedUsers("entry", iter([(1, _convert(one))]))
    return ParsedUsers("line", _parse_json_lines(text))


def _convert(raw: object) -> UserRecord | str:
    try:
        return msgspec.convert(raw, UserRecord)
    except msgspec.ValidationError as exc:
        return str(exc)


def _parse_single_object(text: str) -> dict[str, object] | None:
    """The one object that the text is, over several lines; None when it is something else."""
    first, _, rest = text.strip(" \t\r\n").partition("\n")
    if not first.startswith("{") or first.rstrip().endswith("}") or not rest:
        return None
    try:
        return msgspec.json.decode(text, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def _parse_json_lines(text: str) -> Iterator[tuple[int, UserRecord | str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if _NOT_UTF8.search(line):
            yield number, "is not UTF-8"
        elif line.strip():
            try:
                yield number, _convert(msgspec.json.decode(line))
            except (msgspec.MsgspecError, UnicodeError, RecursionError) as exc:
                yield number, f"is not JSON: {exc}"


def _parse_json_array(text: str) -> Iterator[tuple[int, UserRecord | str]]:
    """Yields entry by entry. Ends after an entry that is no JSON, since it is unknown where the next one begins."""
    decoder, spaces = json.JSONDecoder(), re.compile(r"[ \t\r\n]*")

    def skip(at: int) -> int:
        return spaces.match(text, at).end()  # type: ignore[union-attr]  # matches nothing, too

    at, number = skip(skip(0) + 1), 0
    if text[at : at + 1] == "]":
        at = skip(at + 1)
    else:
        while True:
            number += 1
            try:
                raw, at = decoder.raw_decode(text, at)
            except (ValueError, RecursionError) as exc:
                yield number, f"is not JSON, and what follows is not read: {exc}"
                return
            yield number, _convert(raw)
            at = skip(at)
            mark, at = text[at : at + 1], skip(at + 1)
            if mark == "]":
                break
            if mark != ",":
                yield number + 1, "is not there, or has no comma before it; what follows is not read"
                return
    if at < len(text):
        yield number + 1, "comes after the end of the array, and is not read"


# ---- CSV ------------------------------------------------------------------------------------------------------------


class _Header(NamedTuple):
    delimiter: str
    fields: list[str]  # a column's field, "" for one that is not read
    ignored: tuple[str, ...]


def _parse_csv(lines: list[str]) -> ParsedUsers | Refusal:
    at = next((at for at, line in enumerate(lines) if line.strip()), len(lines))
    delimiters: tuple[str, ...] = DELIMITERS
    if at < len(lines) and (named := _DELIMITER_LINE.fullmatch(lines[at])):
        at, delimiters = at + 1, (named[1],)
    if at >= len(lines):
        return ParsedUsers("line", iter(()))
    headers = [_parse_header(lines[at], delimiter) for delimiter in delimiters]
    header = max(headers, key=lambda each: len({*each.fields} & {*REQUIRED}))
    if lacking := [field for field in REQUIRED if field not in header.fields]:
        names = "username, email, password and, if pictures are known, avatarUrl"
        return _refused(
            f"line {at + 1}: the header lacks {', '.join(lacking)}; "
            f"a CSV file begins with the names of its columns: {names}"
        )
    if twice := [field for field in COLUMNS.values() if header.fields.count(field) > 1]:
        return _refused(f"line {at + 1}: the header has {', '.join(twice)} twice")
    return ParsedUsers("line", _parse_rows(lines, at + 1, header), header.ignored)


def _parse_header(line: str, delimiter: str) -> _Header:
    try:
        cells = next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error:
        cells = []
    fields = [COLUMNS.get("".join(filter(str.isalnum, cell.casefold())), "") for cell in cells]
    ignored = tuple(cell.strip() for cell, field in zip(cells, fields, strict=True) if not field and cell.strip())
    return _Header(delimiter, fields, ignored)


def _parse_rows(lines: list[str], at: int, header: _Header) -> Iterator[tuple[int, UserRecord | str]]:
    """Yields row by row. Only the first line of a bad record is refused: the other lines, which an open quote has
    included, are read again one by one.

    A line that is read again must have an even number of quotes, else it is the end or the beginning of a cell.
    """
    swallowed = at  # lines before this one are read again
    while at < len(lines):
        taken = 0
        if at < swallowed and lines[at].count('"') % 2:
            yield at + 1, "has a quote without its pair"
            at += 1
            continue

        def feed(start: int = at) -> Iterator[str]:
            nonlocal taken
            for line in lines[start : start + MAX_RECORD_LINES]:
                taken += 1
                yield line + "\n"

        try:
            cells = next(csv.reader(feed(), delimiter=header.delimiter, strict=True), [])
        except csv.Error as exc:
            yield at + 1, f"is no CSV: {exc}"
            swallowed = max(swallowed, at + taken)
            at += 1
            continue
        person = _parse_row(cells, header)
        if person is not None:
            if taken > 1 and (isinstance(person, str) or _spans_lines(person)):
                person, swallowed, taken = (
                    "has a quote without its end, or a cell of several lines",
                    max(swallowed, at + taken),
                    1,
                )
            yield at + 1, person
        at += taken


def _parse_row(cells: list[str], header: _Header) -> UserRecord | str | None:
    """None for an empty row."""
    if not any(cell.strip() for cell in cells):
        return None
    if _NOT_UTF8.search("".join(cells)):
        return "is not UTF-8"
    if any(cell.strip() for cell in cells[len(header.fields) :]):
        return f"has {len(cells)} cells, the header {len(header.fields)}"
    found = {field: cell for field, cell in zip(header.fields, cells, strict=False) if field}
    if lacking := [field for field in REQUIRED if not found.get(field)]:
        return f"has no {', '.join(lacking)}"
    return UserRecord(found["username"], found["email"], found["password"], found.get("avatarUrl", "").strip() or None)


def _spans_lines(person: UserRecord) -> bool:
    return any("\n" in value for value in (person.username, person.email, person.password, person.avatarUrl or ""))
