"""Questions from ``.jsonl``, ``.csv`` and ``.parquet`` files.

Each row has ``question``, ``choices`` and ``answer``; ``id`` and ``group`` (or ``subject``,
``kind``) are optional. docs/questions.md is the reference.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from phaseprune.errors import UserError
from phaseprune.questions.question import Question

FIELDS = ("question", "choices", "answer")
GROUP_FIELDS = ("group", "subject", "kind")


def read_questions(path: Path) -> list[Question]:
    """Read a file of questions.

    Raises:
        UserError: for an unreadable or empty file, broken JSON, or a row whose fields are missing
            or wrong; the sentence names the file and the line (or row).
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: questions are read from {', '.join(READERS)} files, not this one")
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; check the path")
    questions = [_question(row, f"{path}, {place}", str(i)) for i, (place, row) in
                 enumerate(reader(path))]
    if not questions:
        raise UserError(f"{path}: the file holds no questions; give one question a row")
    return questions


def _rows_jsonl(path: Path) -> Iterator[tuple[str, Any]]:
    with open(path, encoding="utf-8-sig") as handle:
        for number, line in enumerate(_decoded(handle, path), start=1):
            if not line.strip():
                continue
            try:
                yield f"line {number}", json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(
                    f"{path}, line {number}: broken JSON ({error.msg} at column {error.colno}); "
                    "each line must be one JSON object"
                ) from None


def _rows_csv(path: Path) -> Iterator[tuple[str, Any]]:
    with open(path, encoding="utf-8-sig", newline="") as handle:
        reader = csv.DictReader(_decoded(handle, path))
        for row in reader:
            place = f"line {reader.line_num}"
            if isinstance(row.get("choices"), str):
                try:
                    row["choices"] = json.loads(row["choices"])
                except json.JSONDecodeError:
                    raise UserError(
                        f"{path}, {place}: the choices of a CSV file must be a JSON list, "
                        'like ["red", "blue"]'
                    ) from None
            yield place, row


def _rows_parquet(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: not a readable parquet file ({error})") from None
    for number, row in enumerate(rows, start=1):
        yield f"row {number}", row


READERS = {".jsonl": _rows_jsonl, ".csv": _rows_csv, ".parquet": _rows_parquet}


def _decoded(handle, path: Path) -> Iterator[str]:
    """Lines of a text file, with a sentence instead of a traceback for a wrong encoding."""
    try:
        yield from handle
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from None


def _question(row: Any, place: str, default_id: str) -> Question:
    if not isinstance(row, dict):
        raise UserError(f"{place}: each question must be an object with {', '.join(FIELDS)}")
    missing = [name for name in FIELDS if row.get(name) is None]
    if missing:
        have = ", ".join(str(name) for name in row) or "none"
        raise UserError(f"{place}: the field {missing[0]!r} is missing (fields found: {have})")
    choices, labels = row["choices"], None
    if isinstance(choices, dict):  # the hub's ARC layout
        choices, labels = choices.get("text"), choices.get("label")
    if not isinstance(choices, list) or not all(isinstance(c, str | int | float) for c in choices):
        raise UserError(f"{place}: choices must be a list of texts, not {row['choices']!r:.60}")
    choices = tuple(str(choice) for choice in choices)
    if len(choices) < 2:
        raise UserError(f"{place}: a question needs at least 2 choices and this has {len(choices)}")
    if len(choices) > len(ascii_uppercase):
        raise UserError(f"{place}: at most {len(ascii_uppercase)} choices; this has {len(choices)}")
    empty = [i for i, choice in enumerate(choices) if not choice.strip()]
    if empty:
        raise UserError(f"{place}: choice {empty[0]} is empty; give it a text or remove it")
    if not isinstance(row["question"], str) or not row["question"].strip():
        raise UserError(f"{place}: the question must be a text and is {row['question']!r:.60}")
    answer = _answer(row["answer"], len(choices), labels, place)
    group = next((str(row[name]) for name in GROUP_FIELDS if row.get(name) is not None), None)
    identity = default_id if row.get("id") is None else str(row["id"])
    return Question(identity, row["question"], choices, answer, group)


def _answer(answer: Any, options: int, labels: list | None, place: str) -> int:
    """0-based index from an index or a label; a row's own labels come before A, B, C."""
    known = [str(label) for label in labels] if labels else list(ascii_uppercase[:options])
    if isinstance(answer, str) and answer.strip() in known:
        return known.index(answer.strip())
    is_index = isinstance(answer, int) and not isinstance(answer, bool)
    is_index |= isinstance(answer, float) and answer.is_integer()
    is_index |= isinstance(answer, str) and answer.strip().isdigit()
    if is_index and 0 <= int(answer) < options:
        return int(answer)
    raise UserError(
        f"{place}: the answer {answer!r} is not among the {options} choices; give a 0-based index "
        f"(0 to {options - 1}) or a label ({', '.join(known)})"
    )
