"""Files of questions: what their rows are recognised as, and the questions that they hold.

docs/questions.md is the reference.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
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
    columns_option,
    columns_text,
    encodable,
    is_blank,
    named,
    plain_name,
    read_options,
    word_of,
)
from phaseprune.questions.schemas import Schema

#: Rows by which columns are proposed.
_LOOKED_AT = 50
#: Names under which rows have what is optional.
_USUAL = {"id": schemas.IDS, "group": schemas.GROUPS}
#: Below it, what all answers have in common is told: chance would hardly make it so.
_HARDLY = 0.001
#: How a question ends, in several scripts.
_ASKS = ("?", "？", "؟")
#: Characters from which on a field of no known name may be a passage.
_PROSE = 40


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
    whole = Record(_whole(rows), "")
    items = [_items(schema, record) for record in records]
    items = _with_other_answers(items, schema, whole, given)
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
    notes += _left_out(records, items, schema, whole, given)
    if schema.one_place:
        questions = shuffle_options(questions, 0)
        notes.append(
            "the data have the right option in one place; the options are put in an order that is "
            "drawn from each question"
        )
    else:
        notes += _one_place(questions)
    return QuestionFile(questions, schema.used(whole), tuple(notes))


def _whole(rows: Rows) -> dict[str, Any]:
    """All fields that rows have, each with the first value that it has.

    What rows are is said by all of them: the first may lack a passage or a second answer.
    """
    found: dict[str, Any] = {}
    for _, row in rows:
        for name, value in row.items() if isinstance(row, dict) else ():
            if is_blank(found.setdefault(name, value)):
                found[name] = value
    return found


def _of_table(path: Path, table: Table, given: Mapping[str, Any]) -> tuple[Rows, Schema | None]:
    """Rows and schema of a table, whose first record is its header unless it is a question."""
    if not table.records:
        return [], None
    header = table.records[0]
    numbers = [str(number) for number in range(1, len(header) + 1)]
    fields = [
        part.strip()
        for role in schemas.ROLES
        for name in schemas.field_names(given.get(role, ()))
        for part in name.split("+")
    ]
    names = None
    if fields:
        by_number = {*fields} <= {*numbers} and not {*fields} <= {*header}
        rows = table.rows(numbers if by_number else None)
    elif schemas.recognise(Record(dict.fromkeys(header, ""), "")) or _is_header(table.records):
        rows = table.rows(None)
    elif names := _without_header(table.records):
        asked = names.index("question")
        if lead := _lead(table.records, asked):
            found = dict(zip([*names[:asked], lead, "question"], numbers, strict=False))
            raise _not_recognised(
                path,
                table.rows(numbers),
                found,
                f"it has no header, and column {asked + 1} may be the question or stand before it",
            )
        rows = table.rows(names)
    else:
        rows = table.rows(numbers)
        # A header names no option, so a field that does in every record is not below one.
        if {*_guess([row for _, row in rows[:_LOOKED_AT]], {})} >= {"question", "answer"}:
            raise _not_recognised(
                path, rows, {}, "it has no header and is not the usual question, options, answer"
            )
        rows = table.rows(None)
    schema = _schema(path, rows, given) if rows else None
    if names and schema:
        schema = replace(schema, name=f"{schema.name} without a header")
    return rows, schema


def _is_header(records: Sequence[Sequence[str]]) -> bool:
    """Whether the first record is a header by its look, though its names are not known."""
    header, *others = records
    name = header[0].strip()
    if len(name.split()) > 3 or name.endswith(_ASKS):
        return False
    if not others or not all(header) or len({*header}) < len(header):
        return False
    firsts = [record[0].strip() for record in others]
    numbered = all(as_number(first) is not None for first in firsts)
    return (
        plain_name(header[0]) in map(plain_name, (*schemas.QUESTIONS, *schemas.IDS))
        or (_counts_on(header) and not _counts_on(others[0]))
        or (numbered and as_number(header[0]) is None)
        or (len(header[0].split()) == 1 and all(len(first.split()) > 1 for first in firsts))
    )


def _counts_on(cells: Sequence[str]) -> bool:
    """Whether cells are as names that count on: A, B or option1, option2."""
    record = Record(dict.fromkeys(cells, ""), "")
    starts = [cell for cell in cells if re.fullmatch(r".*\D[01]|.*[aA]", cell.strip())]
    return any(len(record.counted(start.strip())) >= 2 for start in starts)


def _without_header(records: Sequence[Sequence[str]]) -> list[str] | None:
    """Names for a table without a header: question, options, the right one.

    None where the records are anything else. A number in front is an id.
    """
    width = len(records[0])
    if width < 3 or any(len(record) != width for record in records):
        return None
    ids = [as_number(record[0].strip()) for record in records]
    numbered = width > 4 and None not in ids and len({*ids}) == len(ids)
    lead = ["id", "question"] if numbered else ["question"]
    options = width - len(lead) - 1
    labels = ["choices"] if options == 1 else [*ascii_uppercase[:options]]
    names = [*lead, *labels, "answer"]
    rows = (dict(zip(names, record, strict=False)) for record in records)
    fits = options <= MOST_OPTIONS and all(_may_answer(row, "answer", labels) for row in rows)
    return names if fits else None


def _lead(records: Sequence[Sequence[str]], asked: int) -> str | None:
    """The role of a column that is read as the question and seems to stand before it, as a subject.

    None where nothing speaks for it: it has as many question marks as the next, more than one word
    and not the same text again and again.
    """
    if len(records[0]) - asked < 5:
        return None
    firsts, seconds = ([record[asked + step].strip() for record in records] for step in (0, 1))
    marks = [sum(cell.endswith(_ASKS) for cell in cells) for cells in (firsts, seconds)]
    words = all(re.fullmatch(r"[!-~]+", first) for first in firsts)
    sentences = sum(len(second.split()) > 1 for second in seconds)
    repeated = len({*firsts}) * 2 <= len(firsts) and len({*seconds}) > len({*firsts})
    if (
        (marks[1] > marks[0] and marks[1] * 4 > len(records))
        or (words and sentences * 2 > len(records))
        or repeated
    ):
        return "id" if not asked and len({*firsts}) == len(firsts) else "group"
    return None


def _schema(path: str | Path, rows: Rows, given: Mapping[str, Any]) -> Schema:
    """What a file's rows are.

    Raises:
        UserError: says the fields found and the columns that would map them.
    """
    place, row = rows[0]
    record = Record(_whole(rows), f"{path}, {place}")
    if not isinstance(row, dict):
        raise record.refuse("each question must be an object with question, choices, answer")
    schema = schemas.with_columns(record, given) if given else schemas.recognise(record)
    if schema is not None:
        return schema
    found = schemas.find_roles(record, given)
    missing = [repr(role) for role in schemas.missing_roles(found)]
    what = (
        f"the field {missing[0]} is"
        if len(missing) == 1
        else (f"the fields {', '.join(missing[:-1])} and {missing[-1]} are")
    )
    raise _not_recognised(path, rows, {**given, **found}, f"not recognised: {what} missing")


def _not_recognised(path: str | Path, rows: Rows, found: Mapping[str, Any], what: str) -> UserError:
    place, row = rows[0]
    numbered = all(str(name).isdigit() for name in row)
    fields = [f"{name} {shown(row[name])}" if numbered else str(name) for name in row]
    told = f"{path}, {place}: {what} (fields found: {', '.join(fields) or 'none'}); "
    sample = [(where, one) for where, one in rows[:_LOOKED_AT] if isinstance(one, dict)]
    columns = _proposal(sample, found)
    if columns is None:
        return UserError(
            told + "if each row is a question, say which field is what with "
            "--columns, as question=q,choices=A+B+C+D,answer=key"
        )
    return UserError(f"{told}say which field is what with {columns_option(columns)}")


def _proposal(rows: Rows, found: Mapping[str, Any]) -> dict[str, Any] | None:
    """The ``--columns`` that would most likely map rows; None where none is found that reads them.

    What one is found for may still hold single rows that are wrong.
    """
    plain = [row for _, row in rows]
    guesses = [_guess(plain, found)]
    for name in rows[0][1]:
        inner = [row.get(name) for row in plain]
        if all(isinstance(one, dict) and one for one in inner):
            roles = schemas.find_roles(Record(_whole([("", one) for one in inner]), ""))
            below = _guess(inner, roles)
            guesses.append({role: [f"{name}.{one}" for one in below[role]] for role in below})
    guesses = [guess for guess in guesses if {"question", "choices", "answer"} <= {*guess}]
    for some in (rows, rows[:1]):
        for guess in guesses:
            columns = {role: "+".join(names) for role, names in guess.items()}
            columns |= {"answers": found["answers"]} if "answers" in found else {}
            for more in ({}, {"answers": "1-based"}):
                if _reads(some, columns | more):
                    return columns | more
    return None


def _reads(rows: Rows, columns: Mapping[str, Any]) -> bool:
    """Whether rows can be read by the columns as they would be typed."""
    try:
        read_rows("", rows, columns_text(columns))
    except UserError:
        return False
    return True


def _guess(rows: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> dict[str, list[str]]:
    """The fields that most likely are what is missing; those found stay."""
    record = Record(_whole([("", row) for row in rows]), "")
    left = [name for name in record.row if isinstance(name, str)]
    columns = {name: [row.get(name) for row in rows] for name in left}
    found = {
        role: _named_fields(record, found[role])
        for role in schemas.ROLES
        if role in found and role != "context"
    }
    left = [name for name in left if not any(name in names for names in found.values())]
    texts = [name for name in left if all(isinstance(one, str) for one in columns[name])]

    def options_of(names: Sequence[str]) -> list[str]:
        """Those that may be options: such as follow the question, if there are several."""
        places = [*record.row]
        asked = [places.index(one) for one in found.get("question", ()) if one in places]
        names = [name for name in names if name in texts]
        after = [name for name in names if places.index(name) > max(asked, default=-1)]
        return after if len(after) > 1 else names

    if "question" not in found and texts:
        longest = max(texts, key=lambda name: sum(len(one) for one in columns[name]))
        found["question"] = [longest]
        left = [name for name in left if name != longest]
    if "choices" not in found:
        held = (name for name in left if all(isinstance(o, list | dict) for o in columns[name]))
        if choices := next(held, None):
            found["choices"] = [choices]
            left = [name for name in left if name != choices]
    if "answer" not in found:
        flagged = schemas.flags(*found["choices"]) if len(found.get("choices", ())) == 1 else ()
        for name in (*filter(record.name, flagged), *reversed(left)):
            options = found.get("choices") or options_of([one for one in left if one != name])
            if all(_may_answer(row, name, options) for row in rows):
                found["answer"] = [name]
                left = [one for one in left if one != name]
                break
    if "choices" not in found:
        left = options_of(left)
        found |= {"choices": _alike(left) or left} if len(left) > 1 else {}
    return {role: found[role] for role in schemas.ROLES if role in found}


def _named_fields(record: Record, fields: Any) -> list[str]:
    """Fields of a role as the row names them; those that count on, one by one."""
    if isinstance(fields, str) and "{" in fields:
        return [fields]
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


def _may_answer(row: Mapping[str, Any], name: str, names: Sequence[str]) -> bool:
    """Whether a field may say which of the options of some fields is right."""
    record = Record(row, "")
    try:
        # Of several fields some may turn out to be no options.
        held = [one for one in names if len(names) == 1 or isinstance(row.get(one), str)]
        options = read_options(record, held[0] if len(held) == 1 else held)
    except (UserError, IndexError):
        return False
    item, value = Item(record, "", options), record.get(name)
    ways = (item.by_label(value), item.by_label(value, 1), item.by_text(value))
    return len(options.texts) > 1 and any(way is not None for way in ways)


def _items(schema: Schema, record: Record) -> list[Item]:
    """The questions of a row, checked."""
    if not isinstance(record.row, dict):
        raise record.refuse("each question must be an object with question, choices, answer")
    items = schema.items(record)
    for item in items:
        _check(item)
    return items


def _with_other_answers(
    items: list[list[Item]], schema: Schema, whole: Record, given: Mapping[str, Any]
) -> list[list[Item]]:
    """Items with the further fields that name an option wherever they stand; they must agree."""
    if "answer" in given or schema.unpack:
        return items
    usual = (*schemas.ANSWERS, *schemas.OTHER_ANSWERS, *schemas.flags(schema.choices))
    names = dict.fromkeys(filter(None, map(whole.name, usual)))
    for name in [name for name in names if name not in schema.fields(whole)]:
        told = [(item, item.record.get(name)) for [item] in items]
        if all(_names_option(item, value, schema) for item, value in told if not is_blank(value)):
            items = [[replace(item, given=(*item.given, (name, value)))] for item, value in told]
    return items


def _names_option(item: Item, value: Any, schema: Schema) -> bool:
    places = [item.by_label(value, first) for first in schema.firsts] if item.right is None else []
    return any(one is not None for one in (*places, item.by_text(value)))


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
    by_text = all(item.by_text(item.value) is not None for item in asked)
    as_text = kind == "text" or (not kind and by_text and not by_label)
    one_based = "" if kind or first or as_text else _one_based(asked)
    if not (kind or by_label or as_text):
        _check_mixed(asked, first, one_based)
    answers = []
    for item in items:
        label, text = item.by_label(item.value, first), item.by_text(item.value)
        found = text if as_text or (not kind and label is None) else label
        hint = _other_count(item, first, one_based, given) if found is None else ""
        answers.append(item.answer(found, first, kind, hint))
    notes = []
    if first and isinstance(schema.first, tuple):
        notes.append("the answers count from 1: read from 0, some would be no option")
    elif one_based and any(_number(item) is not None and _labelled(item, 0) for item in asked):
        notes.append(
            f"the answers look 1-based ({one_based}) and are read as 0-based; if they count from "
            f"1, give {_columns({**given, 'answers': '1-based'})}"
        )
    if (
        by_label
        and by_text
        and not kind
        and any(item.by_label(item.value, first) != item.by_text(item.value) for item in asked)
    ):
        notes.append(
            "every answer is also the text of an option, and is read as its label or "
            f"{first}-based index; if it is the text, give {_columns({**given, 'answers': 'text'})}"
        )
    return answers, notes


def _labelled(item: Item, first: int) -> bool:
    return item.by_label(item.value, first) is not None


def _number(item: Item) -> int | None:
    return as_number(word_of(item.value) or "")


def _columns(given: Mapping[str, Any]) -> str:
    """``--columns`` as a note names it."""
    return columns_option(given, " ")


def _other_count(item: Item, first: int, one_based: str, given: Mapping[str, Any]) -> str:
    """What to give where an answer is no option, but would be one if numbers began elsewhere."""
    if one_based:
        return (
            f"; the answers look 1-based ({one_based}): if they count from 1, give "
            f"{columns_option({**given, 'answers': '1-based'})}"
        )
    if first and not given.get("answers") and _number(item) == 0 and not item.numbered:
        zero = columns_option({**given, "answers": "0-based"})
        return f"; if the answers count from 0, give {zero}"
    return ""


def _check_mixed(asked: Sequence[Item], first: int, one_based: str) -> None:
    """Check a file that has labels or numbers in some rows and texts in others.

    Raises:
        UserError: an answer may be both, or is a text as others are labels or numbers.
    """
    ways = [(item, item.by_label(item.value, first), item.by_text(item.value)) for item in asked]
    labelled = {_kind(item) for item, label, text in ways if text is None and label is not None}
    looks = f" (the answers look 1-based: {one_based})" if one_based else ""
    both = [
        (item, "is a label or number and also the text of another option")
        for item, label, text in ways
        if None not in (label, text) and label != text
    ]
    other = [
        (item, "is the text of an option and no label or number of one, as other rows' answers are")
        for item, label, text in ways
        if label is None and text is not None and _kind(item) in labelled - {None}
    ]
    for item, what in (*both, *other):
        raise item.record.refuse(
            f"the answer {shown(item.value)} {what}; say which with --columns answers=text, "
            f"answers=0-based or answers=1-based{looks}"
        )


def _kind(item: Item) -> str | None:
    """Whether an answer is written as a number or as a letter."""
    if _number(item) is not None:
        return "number"
    word = word_of(item.value)
    return "letter" if word and re.fullmatch(r"\(?[A-Za-z][).:]?", word) else None


def _one_based(items: Sequence[Item]) -> str:
    """In words what makes the answers look as if they counted from 1; empty if nothing does."""
    numbers, chance, beyond = [], 1.0, False
    for item in items:
        number = _number(item)
        if number is None or item.numbered:
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
    least, most = min(numbers), max(numbers)
    return f"{least} to {most}, never 0" if least < most else f"always {most}, never 0"


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
    """That options begin with labels, or are nothing else, before which labels will be put."""
    labels = (ascii_uppercase, ascii_uppercase.lower(), "123456789")
    first = shown(questions[0].choices[0])
    if all(any(schemas.labelled(one.choices, kind) for kind in labels) for one in questions):
        return [
            f"the options begin with labels of their own (as {first}), and where options are shown "
            "others are put before them; leave them out of the file"
        ]
    letters = labels[:2]
    if all(
        _bare(one.choices) in [[*kind[: len(one.choices)]] for kind in letters] for one in questions
    ):
        return [
            f"the options are labels alone (as {first}), and where options are shown others are "
            "put before them; give the texts that they stand for"
        ]
    return []


def _bare(choices: Sequence[str]) -> list[str]:
    return [choice.strip().strip("().:[]") for choice in choices]


def _left_out(
    records: Sequence[Record],
    items: Sequence[Sequence[Item]],
    schema: Schema,
    whole: Record,
    given: Mapping[str, Any],
) -> list[str]:
    """That rows have texts which are no part of what is asked, and may be a part of the question.

    Those by the usual name of a passage or question, and such as are long; not what explains the
    answer, and not what stands in the question or the options already.
    """
    if "context" in given or "{" in given.get("question", ""):
        return []
    passages = {plain_name(name) for name in (*schemas.CONTEXTS, "text")}
    passages |= {plain_name(name) for name in schemas.QUESTIONS} if schema.common else set()
    others = {
        plain_name(name)
        for name in (
            *schemas.IDS,
            *schemas.GROUPS,
            *schemas.ANSWERS,
            *schemas.OTHER_ANSWERS,
            *schemas.EXPLANATIONS,
        )
    }
    used = {name.partition(".")[0] for name in schema.fields(whole)}
    used |= {given[role] for role in ("id", "group") if role in given}

    def is_left_out(name: str, record: Record, several: Sequence[Item]) -> bool:
        value = record.row.get(name)
        lines = value if isinstance(value, list) else [value]
        if not all(isinstance(line, str) for line in lines):
            return False
        asked = "\n".join(text for item in several for text in (item.text, *item.options.texts))
        text = " ".join(line for line in lines if line.strip() not in asked)
        return bool(text) and (plain_name(name) in passages or (schema.common and _is_prose(text)))

    names = [
        name
        for name in whole.row
        if isinstance(name, str) and name not in used and plain_name(name) not in others
    ]
    found = [name for name in names if any(map(is_left_out, repeat(name), records, items))]
    if not found:
        return []
    is_one = len(found) == 1
    return [
        f"the {'field' if is_one else 'fields'} {', '.join(found)} {'is' if is_one else 'are'} not "
        "used; if it is a passage that belongs to the question, give "
        f"{_columns({**given, 'context': found[0]})}"
    ]


def _is_prose(text: str) -> bool:
    """Whether a text has several words; languages without blanks between them have others."""
    return len(text) >= _PROSE and (" " in text or not text.isascii())


def _one_place(questions: Sequence[Question]) -> list[str]:
    chance = math.prod(1 / len(question.choices) for question in questions[1:])
    if len({question.answer for question in questions}) > 1 or chance > _HARDLY:
        return []
    return [
        f"the right option is always number {questions[0].answer + 1}, and where options are shown "
        "their place tells it; --shuffle puts them in another order"
    ]
