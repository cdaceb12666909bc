"""Files of questions: what their rows are recognised as, and the questions that they hold.

docs/questions.md is the reference.
"""

from __future__ import annotations

import math
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from phaseprune.errors import UserError, shown
from phaseprune.questions import schemas
from phaseprune.questions.formats import (
    SUFFIXES,
    TABLES,
    Rows,
    Table,
    read_json,
    read_parquet,
    read_table,
    suffix_of,
)
from phaseprune.questions.question import Question, shuffle_options
from phaseprune.questions.rows import (
    MOST_OPTIONS,
    ON,
    Item,
    Record,
    as_number,
    encodable,
    named,
    word_of,
)
from phaseprune.questions.schemas import Schema

#: Rows by which columns are proposed.
_LOOKED_AT = 50
#: Names under which rows have what is optional.
_USUAL = {"id": schemas.IDS, "group": schemas.GROUPS}
#: Below it, what all answers have in common is told: chance would hardly make it so.
_HARDLY = 0.001


@dataclass(frozen=True)
class QuestionFile:
    """A file of questions, read.

    Attributes:
        questions: in the file's order.
        recognised: what its rows are, in words: ``ARC (question, choices, answerKey)``.
        notes: what whoever uses them should know, a sentence each.
    """

    questions: list[Question]
    recognised: str
    notes: tuple[str, ...] = ()


def read_questions(path: Path, columns: str | Mapping[str, Any] | None = None) -> list[Question]:
    """The questions of a file; see ``read_file``."""
    return read_file(path, columns).questions


def read_file(path: Path, columns: str | Mapping[str, Any] | None = None) -> QuestionFile:
    """Read a file of questions.

    Args:
        path: a file of one of ``formats.SUFFIXES``; text also as ``.gz``.
        columns: which fields are what (``schemas.parse_columns``), where it is not recognised.

    Raises:
        UserError: for an unreadable or empty file, one that is not recognised (says the fields
            found and the ``--columns`` that would map them), or a row whose fields are missing or
            wrong; the sentence names the file and the line (or row).
    """
    path = Path(path)
    suffix = suffix_of(path)
    if suffix is None:
        raise UserError(
            f"{path}: questions are read from {', '.join(SUFFIXES)} files (text also as .gz), not "
            "this one"
        )
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; check the path")
    given = schemas.parse_columns(columns)
    if suffix in TABLES:
        rows, schema = _of_table(path, read_table(path, suffix), given)
    else:
        rows = read_parquet(path) if suffix == ".parquet" else read_json(path)
        schema = _schema(path, rows, given) if rows else None
    if not rows:
        raise UserError(f"{path}: the file holds no questions; give one question a row")
    return _questions(path, rows, schema, given)


def read_rows(
    where: str, rows: Rows, columns: str | Mapping[str, Any] | None = None
) -> QuestionFile:
    """The questions of rows that stand in no file.

    Args:
        where: what they are called in errors.
        rows: with their places.
        columns: as of ``read_file``.

    Raises:
        UserError: as ``read_file``.
    """
    given = schemas.parse_columns(columns)
    if not rows:
        raise UserError(f"{where}: there are none; give one question a row")
    return _questions(where, rows, _schema(where, rows, given), given)


def _questions(
    where: str | Path, rows: Rows, schema: Schema, given: Mapping[str, Any]
) -> QuestionFile:
    """The questions of rows of a schema."""
    records = [Record(row, f"{where}, {place}") for place, row in rows]
    items = [_items(schema, record) for record in records]
    answers, notes = _answers([item for several in items for item in several], schema, given)
    questions: list[Question] = []
    for number, (record, several) in enumerate(zip(records, items, strict=True)):
        identity = _scalar(record, "id", given) or str(number)
        group = _scalar(record, "group", given)
        for part, item in enumerate(several):
            own = identity if len(several) == 1 else f"{identity}/{part}"
            answer = answers[len(questions)]
            questions.append(
                Question(own, item.text, item.options.texts, answer, group, item.pairs)
            )
    notes += doubled_ids(questions) + _labels_twice(questions)
    if schema.one_place:
        questions = shuffle_options(questions, 0)
        notes.append(
            "the data have the right option in one place; the options are put in an order that is "
            "drawn from each question"
        )
    else:
        notes += _one_place(questions)
    return QuestionFile(questions, schema.used(records[0]), tuple(notes))


def _of_table(path: Path, table: Table, given: Mapping[str, Any]) -> tuple[Rows, Schema | None]:
    """Rows and schema of a table, whose first record is its header unless it is a question."""
    if not table.records:
        return [], None
    header = table.records[0]
    numbers = [str(number) for number in range(1, len(header) + 1)]
    fields = [one for role in schemas.ROLES for one in _parts(given.get(role, ()))]
    if fields:
        by_number = all(one in numbers and one not in header for one in fields)
        rows = table.rows(numbers if by_number else None)
    elif schemas.recognise(Record(dict.fromkeys(header, ""), "")) is not None:
        rows = table.rows(None)
    elif names := _without_header(table.records):
        rows = table.rows(names)
    else:
        rows = table.rows(numbers)
        # A header names no option, so a field that does in every record is not below one.
        if "FIELD" not in _proposal([row for _, row in rows[:_LOOKED_AT]], {}):
            raise _not_recognised(path, rows, {}, "it has no header and is not the usual question, "
                                  "options, answer")  # fmt: skip
        rows = table.rows(None)
    return rows, _schema(path, rows, given) if rows else None


def _parts(fields: Any) -> list[str]:
    return fields.split("+") if isinstance(fields, str) else list(fields)


def _without_header(records: Sequence[Sequence[str]]) -> list[str] | None:
    """Names for a table without a header: question, options, the right one's label or number.

    None where the records are anything else. A number in front is an id.
    """
    width = len(records[0])
    if width < 3 or any(len(record) != width for record in records):
        return None
    ids = [as_number(record[0].strip()) for record in records]
    numbered = width > 4 and None not in ids and len({*ids}) == len(ids)
    lead = ["id", "question"] if numbered else ["question"]
    options = width - len(lead) - 1
    labels = [*ascii_uppercase[:options]]
    if options == 1:
        labels = ["choices"]
        if not all(record[-2].lstrip()[:1] in ("[", "{") for record in records):
            return None
        options = MOST_OPTIONS
    for known in ([*ascii_uppercase[:options]], [str(number) for number in range(options)]):
        if all(record[-1].strip(" ()").upper() in known for record in records):
            return [*lead, *labels, "answer"]
    return None


def _schema(path: str | Path, rows: Rows, given: Mapping[str, Any]) -> Schema:
    """What a file's rows are, by the first of them.

    Raises:
        UserError: says the fields found and the columns that would map them.
    """
    place, row = rows[0]
    record = Record(row, f"{path}, {place}")
    if not isinstance(row, dict):
        raise record.refuse("each question must be an object with question, choices, answer")
    schema = schemas.with_columns(record, given) if given else schemas.recognise(record)
    if schema is not None:
        return schema
    found = schemas.find_roles(record, given)
    missing = [repr(role) for role in schemas.missing_roles(found)]
    what = f"the field {missing[0]} is" if len(missing) == 1 else (
        f"the fields {', '.join(missing[:-1])} and {missing[-1]} are"
    )  # fmt: skip
    raise _not_recognised(path, rows, found, f"not recognised: {what} missing")


def _not_recognised(path: str | Path, rows: Rows, found: Mapping[str, Any], what: str) -> UserError:
    place, row = rows[0]
    numbered = all(name.isdigit() for name in row)
    fields = [f"{name} {shown(row[name])}" if numbered else str(name) for name in row]
    sample = [one for _, one in rows[:_LOOKED_AT] if isinstance(one, dict)]
    return UserError(
        f"{path}, {place}: {what} (fields found: {', '.join(fields) or 'none'}); say which field "
        f"is what with {_proposal(sample, found)}"
    )


def _proposal(rows: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> str:
    """The ``--columns`` that would most likely map rows."""
    record = Record(rows[0], "")
    left = [name for name in rows[0] if isinstance(name, str)]
    columns = {name: [row.get(name) for row in rows] for name in left}
    for fields in found.values():
        left = [name for name in left if name not in _named_fields(record, fields)]
    found = {role: _named_fields(record, fields) for role, fields in found.items()}
    texts = [name for name in left if all(isinstance(one, str) for one in columns[name])]
    if "question" not in found and texts:
        longest = max(texts, key=lambda name: sum(len(one) for one in columns[name]))
        found["question"] = [longest]
        left = [name for name in left if name != longest]
    if "choices" not in found:
        held = (name for name in left if all(isinstance(o, list | dict) for o in columns[name]))
        found["choices"] = [*held][:1]
        left = [name for name in left if name not in found["choices"]]
    if "answer" not in found:
        for name in reversed(left):
            options = found["choices"] or [one for one in left if one != name and one in texts]
            if all(_may_answer(row, name, options) for row in rows):
                found["answer"] = [name]
                left = [one for one in left if one != name]
                break
    if not found["choices"]:
        left = [name for name in left if name in texts]
        found["choices"] = _alike(left) or left
    parts = []
    for role in ("question", "choices", "answer"):
        several = role == "choices" and len(found.get(role, ())) > 1
        names = found.get(role) or ["FIELD"]
        parts.append(f"{role}={'+'.join(names) if several else names[0]}")
    return f"--columns={shlex.quote(','.join(parts))}"


def _named_fields(record: Record, fields: Any) -> list[str]:
    """Fields of a role as the row names them; those that count on, one by one."""
    names = record.counted(fields[:-1]) if str(fields).endswith(ON) else fields
    names = [names] if isinstance(names, str) else names
    return [record.name(name) or name for name in names]


def _alike(names: Sequence[str]) -> list[str]:
    """The most names that differ in their last letter or number alone."""
    groups: dict[str, list[str]] = {}
    for name in names:
        stem = name.rstrip("0123456789")
        groups.setdefault(stem if stem != name else name[:-1], []).append(name)
    most = max(groups.values(), key=len, default=[])
    return most if len(most) > 1 else []


def _may_answer(row: Mapping[str, Any], name: str, options: Sequence[str]) -> bool:
    """Whether a field may say which of the options is right."""
    word = word_of(row.get(name))
    if word is None or not options:
        return False
    values = [row.get(one) for one in options]
    if len(values) == 1 and isinstance(values[0], list | dict):
        values = list(values[0].values() if isinstance(values[0], dict) else values[0])
    number = as_number(word)
    labels = ascii_uppercase[: len(values)]
    return (
        word.upper() in [*labels]
        or (number is not None and 0 <= number <= len(values))
        or word in map(word_of, values)
    )


#: A letter or number before an option's text, or a letter alone.
_LABEL = re.compile(r"\(?(?:([A-Za-z]|\d)[).:]\s|([A-Za-z])[).]?$)")


def _items(schema: Schema, record: Record) -> list[Item]:
    """The questions of a row, checked."""
    if not isinstance(record.row, dict):
        raise record.refuse("each question must be an object with question, choices, answer")
    items = schema.items(record)
    for item in items:
        _check(item)
    return items


def _check(item: Item) -> None:
    record, choices = item.record, item.options.texts
    if len(choices) < 2:
        raise record.refuse(f"a question needs at least 2 choices and this has {len(choices)}")
    if len(choices) > MOST_OPTIONS:
        raise record.refuse(f"at most {MOST_OPTIONS} choices; this has {len(choices)}")
    for number, choice in enumerate(choices):
        if not choice.strip():
            raise record.refuse(f"choice {number} is empty; give it a text or remove it")
        _check_text(record, f"choice {number}", choice)
    if not item.text.strip():
        raise record.refuse(f"the question must be a text and is {shown(item.text)}")
    _check_text(record, "the question", item.text)


def _check_text(record: Record, what: str, text: str) -> None:
    if not encodable(text):
        raise record.refuse(
            f"{what} has half a surrogate pair, which no text can have ({shown(text)}); write the "
            "whole character"
        )


def _scalar(record: Record, role: str, given: Mapping[str, Any]) -> str | None:
    """A row's id or group, as a text; None where it has none."""
    for name in [given[role]] if role in given else _USUAL[role]:
        value = record.get(name)
        finite = isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
        if finite and not isinstance(value, bool):
            _check_text(record, named(f"the {role}", name), str(value))
            return str(value)
        if value is not None and (role in given or name == role):
            raise record.refuse(f"the {role} must be a text or a number and is {shown(value)}")
    return None


def _answers(
    items: Sequence[Item], schema: Schema, given: Mapping[str, Any]
) -> tuple[list[int], list[str]]:
    """The right option of each question, and what is to be told of how they are named.

    A file's answers are read in one way, as labels or numbers, or as the options' texts; where
    neither fits all of them, each as far as it is plain.

    Raises:
        UserError: a row's answer is none of its options.
    """
    kind = given.get("answers")
    asked = [item for item in items if item.right is None]
    firsts = schema.firsts
    if len(firsts) > 1 and not all(_labelled(item, firsts[0]) for item in asked):
        firsts = [one for one in firsts if all(_labelled(item, one) for item in asked)] or firsts
    first = firsts[0]
    by_label = all(_labelled(item, first) for item in asked)
    by_text = all(item.by_text(item.given[0][1]) is not None for item in asked)
    one_based = "" if kind or first else _one_based(asked)
    answers = []
    for item in items:
        if item.right is not None:
            answers.append(item.right)
        elif kind == "text" or (not kind and by_text and not by_label):
            answers.append(item.answer(item.by_text, first))
        elif kind or by_label:
            answers.append(item.answer(lambda v, item=item: item.by_label(v, first), first))
        else:
            answers.append(_either(item, first, one_based))
    notes = []
    if first and isinstance(schema.first, tuple):
        notes.append("the answers count from 1: read from 0, some would be no option")
    elif one_based:
        notes.append(
            f"the answers look 1-based ({one_based}) and are read as 0-based; if they count from "
            "1, give --columns answers=1-based"
        )
    if asked and by_label and by_text and not kind:
        differ = sum(
            item.by_label(item.given[0][1], first) != item.by_text(item.given[0][1])
            for item in asked
        )
        if differ:
            notes.append(
                "every answer is also the text of an option, and is read as its label or 0-based "
                "index; if it is the text, give --columns answers=text"
            )
    return answers, notes


def _labelled(item: Item, first: int) -> bool:
    return item.by_label(item.given[0][1], first) is not None


def _either(item: Item, first: int, one_based: str) -> int:
    """The answer of a file that has labels or numbers in some rows and texts in others."""
    field, value = item.given[0]
    label, text = item.by_label(value, first), item.by_text(value)
    if label is not None and text is not None and label != text:
        looks = f" (the answers look 1-based: {one_based})" if one_based else ""
        raise item.record.refuse(
            f"the answer {shown(value)} is a label or number and also the text of another option; "
            f"say which with --columns answers=text, answers=0-based or answers=1-based{looks}"
        )
    try:
        return item.answer(lambda _: text if label is None else label, first)
    except UserError as error:
        if not one_based or label is not None or text is not None:
            raise
        raise UserError(
            f"{error.typed}; the answers look 1-based ({one_based}): if they count from 1, give "
            "--columns answers=1-based"
        ) from None


def _one_based(items: Sequence[Item]) -> str:
    """In words what makes the answers look as if they counted from 1; empty if nothing does."""
    numbers, chance, beyond = [], 1.0, False
    for item in items:
        labels = item.options.labels or ()
        number = as_number(word_of(item.given[0][1]) or "")
        if number is None or any(as_number(label) is not None for label in labels):
            continue
        count = len(item.options.texts)
        if not 1 <= number <= count:
            return ""
        numbers.append(number)
        chance *= 1 - 1 / count
        beyond |= number == count
    # So few may all be others than the first by chance.
    if not numbers or (chance > 0.5 and not beyond):
        return ""
    return f"{min(numbers)} to {max(numbers)}, never 0"


def doubled_ids(questions: Sequence[Question]) -> list[str]:
    """A note on ids that stand at several questions; none where there are no such."""
    counts = Counter(question.id for question in questions)
    twice = [name for name, count in counts.items() if count > 1]
    if not twice:
        return []
    return [
        f"{len(twice)} {'id stands' if len(twice) == 1 else 'ids stand'} at several questions, the "
        f"first {shown(twice[0])}; by them questions cannot be told apart in the results"
    ]


def _labels_twice(questions: Sequence[Question]) -> list[str]:
    """That options begin with labels, or are letters alone, before which labels will be put."""
    for question in questions:
        found = [_LABEL.match(choice) for choice in question.choices]
        names = "".join((match[1] or match[2]).upper() for match in found if match)
        if names not in (ascii_uppercase[: len(found)], "123456789"[: len(found)]):
            return []
    return [
        f"the options begin with labels of their own (as {shown(questions[0].choices[0])}), and "
        "where options are shown others are put before them; leave them out of the file"
    ]


def _one_place(questions: Sequence[Question]) -> list[str]:
    chance = math.prod(1 / len(question.choices) for question in questions[1:])
    if len({question.answer for question in questions}) > 1 or chance > _HARDLY:
        return []
    return [
        f"the right option is always number {questions[0].answer + 1}, and where options are shown "
        "their place tells it; --shuffle puts them in another order"
    ]
