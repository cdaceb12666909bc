"""How rows are stored in files: JSON, tables as text, parquet; and what of it cannot be read."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phaseprune.errors import UserError, shown
from phaseprune.questions.rows import Unreadable

#: Rows with their places, as ``line 3`` or ``row 3``.
Rows = list[tuple[str, Any]]
TABLES = {".csv": ",", ".tsv": "\t"}
JSONS = (".jsonl", ".json", ".ndjson")
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
#: Names under which a document may hold its list of questions.
WRAPPERS = (
    "data",
    "questions",
    "examples",
    "rows",
    "items",
    "samples",
    "instances",
    "results",
    "train",
    "validation",
    "valid",
    "dev",
    "test",
)
#: Characters of a table by which it is found what stands between its fields.
_LOOKED_AT = 200_000
#: A field that is wholly in quotes.
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
#: Digits of a number; Python refuses to read more than 4,300.
_MOST_DIGITS = 1000


def suffix_of(path: Path) -> str | None:
    """What kind of file a path names, without ``.gz``; None for one that is not read."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
        known = (*TABLES, *JSONS)
    else:
        known = (*TABLES, *JSONS, ".parquet")
    return suffixes[-1] if suffixes and suffixes[-1] in known else None


@dataclass(frozen=True)
class Table:
    """The records of a table as text, the first of which may be its header.

    ``lines`` are the numbers of the lines at which they end.
    """

    path: Path
    lines: list[int]
    records: list[list[str]]

    def rows(self, names: list[str] | None) -> Rows:
        """The records by names of the columns; by default those of the header.

        Raises:
            UserError: a name stands there twice, or a record has more fields than there are names.
        """
        records = list(zip(self.lines, self.records, strict=True))
        if names is None:
            (_, names), *records = records
        for name in names:
            if name and names.count(name) > 1:
                raise UserError(
                    f"{self.path}, line {self.lines[0]}: the header has {name!r} "
                    "twice; name each column once"
                )
        rows = []
        for line, record in records:
            if len(record) > len(names):
                raise UserError(
                    f"{self.path}, line {line}: {len(record)} fields, and the file has "
                    f"{len(names)} columns; put texts with commas or quotes in quotes"
                )
            cells = [cell if cell.strip() else None for cell in record]
            cells += [None] * (len(names) - len(record))
            rows.append((f"line {line}", dict(zip(names, cells, strict=True))))
        return rows


def read_text(path: Path) -> str:
    """The text of a file, also of a ``.gz`` one; without the mark that some programs begin with.

    Raises:
        UserError: it cannot be read, or is not UTF-8; says the line.
    """
    try:
        data = path.read_bytes()
        if path.suffix.lower() == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: not UTF-8 text ({error.reason}); save it as UTF-8"
        ) from None


def read_json(path: Path) -> Rows:
    """Rows of JSON: an object a line, a list of objects, or a document that holds them otherwise.

    Raises:
        UserError: it is broken; says the line.
    """
    text = read_text(path)
    lines = [
        (number, line)
        for number, line in enumerate(io.StringIO(text, newline=None), start=1)
        if line.strip()
    ]
    if not lines:
        return []
    if len(lines) == 1 or not _is_json(lines[0][1]):
        try:
            document = _parsed(text)
        except (json.JSONDecodeError, RecursionError) as error:
            if len(lines) > 1 and (text.lstrip()[0] == "[" or ".json" in path.suffixes):
                raise _broken(path, getattr(error, "lineno", 1), error) from None
        else:
            return _of_document(path, document, lines[0][0])
    rows: Rows = []
    for number, line in lines:
        try:
            value = _parsed(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise _broken(path, number, error) from None
        rows += [(f"line {number}", one) for one in (value if _are_objects(value) else [value])]
    return rows


def _broken(path: Path, line: int, error: Exception) -> UserError:
    if isinstance(error, json.JSONDecodeError):
        why = f"{error.msg} at column {error.colno}"
    else:
        why = "nested too deeply to be read"
    return UserError(
        f"{path}, line {line}: broken JSON ({why}); each line must be one JSON object, or the file "
        "a list of them"
    )


def _is_json(line: str) -> bool:
    try:
        _parsed(line)
    except (json.JSONDecodeError, RecursionError):
        return False
    return True


def _parsed(text: str) -> Any:
    return json.loads(text, parse_int=_whole_number)


def _whole_number(digits: str) -> int | Unreadable:
    if len(digits) > _MOST_DIGITS:
        return Unreadable(f"a number of {len(digits):,} digits")
    return int(digits)


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _of_document(path: Path, value: Any, line: int) -> Rows:
    """The rows of a document; a single object that holds none is a row itself."""
    rows = value if _are_objects(value) else None
    if isinstance(value, dict):
        lists = [name for name in WRAPPERS if _are_objects(value.get(name))]
        if len(lists) > 1:
            raise UserError(
                f"{path}: the file holds several lists of questions ({', '.join(lists)}); give "
                "each a file of its own"
            )
        if lists:
            rows = value[lists[0]]
        elif len(value) > 1:
            rows = _of_columns(value)
        elif _are_objects(next(iter(value.values()), None)):
            rows = next(iter(value.values()))  # under a name of its own
    if rows is None:
        return [] if value in ([], {}) else [(f"line {line}", value)]
    if all(isinstance(row.get("row"), dict) for row in rows):
        rows = [row["row"] for row in rows]  # as the hub's server gives them
    return [(f"row {number}", row) for number, row in enumerate(rows, start=1)]


def _of_columns(value: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The rows of an object of columns or of rows by key, as pandas and others write them."""
    inner = list(value.values())
    lists = all(isinstance(one, list) for one in inner)
    if lists and {*value} == {"columns", "index", "data"}:  # pandas' orient="split"
        names, rows = value["columns"], value["data"]
        if not all(isinstance(row, list) and len(row) == len(names) for row in rows):
            return None
        return [dict(zip(map(str, names), row, strict=True)) for row in rows]
    if lists:
        if len({len(one) for one in inner}) > 1:
            return None
        return [dict(zip(value, row, strict=True)) for row in zip(*inner, strict=True)]
    if not all(isinstance(one, dict) and one for one in inner):
        return None
    keys = list(inner[0])
    if all(key.isdigit() for key in keys) and all(list(one) == keys for one in inner):
        return [{name: one[key] for name, one in value.items()} for key in keys]
    return [{"id": key, **one} for key, one in value.items()]


def read_table(path: Path, suffix: str) -> Table:
    """The records of a table; what stands between fields is found from the records themselves.

    Raises:
        UserError: it cannot be parted into fields; says the line.
    """
    text = read_text(path)
    first, _, rest = text.partition("\n")
    told = None
    if first.strip().lower().startswith("sep=") and len(first.strip()) == 5:  # as Excel has it
        told, text = first.strip()[-1], rest
    usual = told or TABLES[suffix]
    dialects = [{"delimiter": one} for one in dict.fromkeys([usual, ",", ";", "\t", "|"])]
    dialects.append({"delimiter": "\t", "quoting": csv.QUOTE_NONE})
    dialect = dialects[0] if told else max(dialects, key=lambda one: _evenness(text, one))
    lines, records = [], []
    for line, record in _records(path, text, dialect["delimiter"], shift=1 if told else 0):
        if any(cell.strip() for cell in record):
            lines.append(line)
            records.append([cell.strip() for cell in record] if not records else record)
    _check_header(path, lines, records)
    return Table(path, lines, records)


def _check_header(path: Path, lines: list[int], records: list[list[str]]) -> None:
    """Refuse a title or a comment above a table."""
    filled = [[cell for cell in record if cell.strip()] for record in records[:2]]
    if len(filled) > 1 and len(filled[0]) == 1 < len(filled[1]):
        raise UserError(
            f"{path}, line {lines[0]}: {shown(filled[0][0])} stands alone, and the next line has "
            f"{len(filled[1])} fields; leave out what stands above the table"
        )


def _records(path: Path, text: str, delimiter: str, shift: int) -> list[tuple[int, list[str]]]:
    """Records with the lines at which they end.

    Quotes are of the text itself where they cannot be around fields: where one that a field begins
    with does not end it, and no field is wholly in quotes.

    Raises:
        UserError: quotes that are neither; says the line.
    """
    found: list[tuple[int, list[str]]] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for record in reader:
            found.append((reader.line_num + shift, record))
    except csv.Error as error:
        plain = _unquoted(text, delimiter, shift)
        if plain is not None:
            return plain
        raise UserError(
            f"{path}, line {reader.line_num + shift}: {error}; is a quote left open? A field that "
            "begins with a quote must end with one, and quotes within it are written twice"
        ) from None
    return found


def _unquoted(text: str, delimiter: str, shift: int) -> list[tuple[int, list[str]]] | None:
    """Records in which quotes mean nothing; None where some clearly are around fields."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=csv.QUOTE_NONE)
    try:
        found = [(reader.line_num + shift, record) for record in reader]
    except csv.Error:
        return None
    width = max(len(record) for _, record in found)
    first = next(len(record) for _, record in found if any(cell.strip() for cell in record))
    quoted = any(_QUOTED.fullmatch(cell.strip()) for _, record in found for cell in record)
    return None if quoted or width > first else found


def _evenness(text: str, dialect: dict[str, Any]) -> tuple[bool, float, int]:
    """How well a way of parting fields fits: several columns, and as many in every record."""
    widths = []
    reader = csv.reader(io.StringIO(text[:_LOOKED_AT], newline=""), **dialect)
    with suppress(csv.Error):
        widths = [len(record) for record in reader if any(cell.strip() for cell in record)]
    if len(text) > _LOOKED_AT:
        del widths[-1:]  # it is cut
    if not widths:
        return False, 0.0, 0
    usual, count = Counter(widths).most_common(1)[0]
    return usual > 1, count / len(widths), usual


def read_parquet(path: Path) -> Rows:
    """Rows of a parquet file. A value that Python cannot hold is ``Unreadable`` in its row.

    Raises:
        UserError: it is no readable parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, partitioning=None)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:120]
        raise UserError(f"{path}: not a readable parquet file ({reason})") from None
    names = []
    for number in range(table.num_columns):
        try:
            names.append(table.schema.field(number).name)
        except UnicodeDecodeError:
            names.append(f"column {number + 1} (its name is not UTF-8)")
    columns = map(_values, table.rename_columns(names).itercolumns())
    rows = (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))
    return [(f"row {number}", row) for number, row in enumerate(rows, start=1)]


def _values(column: Any) -> list[Any]:
    try:
        return column.to_pylist()
    except (ValueError, OverflowError, ArithmeticError):
        return [_value(cell) for cell in column]


def _value(cell: Any) -> Any:
    try:
        return cell.as_py()
    except UnicodeDecodeError as error:
        return Unreadable(f"not UTF-8 text, {error.reason}")
    except (ValueError, OverflowError, ArithmeticError) as error:
        return Unreadable(str(error).splitlines()[0][:80])
