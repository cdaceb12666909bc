"""Questions that are given in Python in place of a name: rows, a table, or ``Question``s.

Tables are known by what they can do; neither pandas nor ``datasets`` is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral
from typing import Any

from phaseprune.errors import UserError, shown
from phaseprune.questions.files import QuestionFile, doubled_ids, read_rows
from phaseprune.questions.formats import Rows
from phaseprune.questions.question import Question, Task
from phaseprune.questions.rows import MOST_OPTIONS, encodable

#: Says in the settings of a task, and so in a manifest, that its questions cannot be loaded again.
GIVEN = "given_in_python"
#: What errors call them.
_PLACE = "the questions given"
_TAKES = (
    "load_task takes a name, the path of a file, a list of dicts or of Questions, a pandas "
    "DataFrame, or a datasets.Dataset"
)


def read_given(given: Any, columns: str | Mapping[str, Any] | None = None) -> QuestionFile:
    """The questions that an object holds.

    Args:
        given: a list of mappings or of ``Question``s, a DataFrame, or a ``datasets.Dataset``.
        columns: which fields of rows are what, as of files.

    Raises:
        UserError: it is anything else, or a row is wrong; says which.
    """
    if isinstance(given, list | tuple):
        if any(isinstance(one, Question) for one in given):
            return _of_questions(given, columns)
        return read_rows(_PLACE, _numbered([_plain(one) for one in given]), columns)
    rows = _of_table(given)
    if rows is None:
        raise UserError(f"{_TAKES}, not {_kind(given)}")
    return read_rows(_PLACE, _numbered(rows), columns)


def default_name(questions: list[Question]) -> str:
    """What questions without a name are called: the same questions always the same."""
    return f"questions-{Task('', tuple(questions)).fingerprint[:8]}"


def _numbered(rows: list[Any]) -> Rows:
    return [(f"row {number}", row) for number, row in enumerate(rows, start=1)]


def _of_table(given: Any) -> list[dict[str, Any]] | None:
    """The rows of a table; None for what is none."""
    if isinstance(given, Mapping):
        return None
    if hasattr(given, "columns") and hasattr(given, "notna"):  # pandas
        names = [str(name) for name in given.columns]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(
                f"{_PLACE}: the table has the column {twice[0]!r} twice; name each once"
            )
        cells = given.astype(object).where(given.notna(), None)
        records = zip(*(cells.iloc[:, place] for place in range(len(names))), strict=True)
        return [_plain(dict(zip(names, record, strict=True))) for record in records]
    if hasattr(given, "column_names") and hasattr(given, "to_list"):  # datasets
        return [_plain(row) for row in given.to_list()]
    return None


def _plain(value: Any) -> Any:
    """A value without NumPy and tuples, as JSON would hold it; NaN as null."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and value != value else value


def _of_questions(given: list | tuple, columns: Any) -> QuestionFile:
    if columns is not None:
        raise UserError(
            "columns says what the fields of rows are, and these are Questions; leave it out"
        )
    questions = [_checked(number, one) for number, one in enumerate(given, start=1)]
    return QuestionFile(questions, "Questions", tuple(doubled_ids(questions)))


def _checked(number: int, one: Any) -> Question:
    """A question whose fields are what they must be; whole numbers and lists are made plain."""
    place = f"{_PLACE}, number {number}"
    if not isinstance(one, Question):
        raise UserError(f"{place}: it is {_kind(one)} among Questions; give one kind alone")
    if not isinstance(one.choices, list | tuple) or not 2 <= len(one.choices) <= MOST_OPTIONS:
        raise UserError(
            f"{place}: choices must be 2 to {MOST_OPTIONS} texts and are {shown(one.choices)}"
        )
    for what, text in (("the question", one.text), *(("a choice", c) for c in one.choices)):
        if not isinstance(text, str) or not text.strip() or not encodable(text):
            raise UserError(f"{place}: {what} must be a text and is {shown(text)}")
    right = one.answer
    if not isinstance(right, Integral) or not 0 <= right < len(one.choices):
        raise UserError(
            f"{place}: answer must be the 0-based number of one of its {len(one.choices)} choices "
            f"and is {shown(right)}"
        )
    if not isinstance(one.id, str):
        raise UserError(f"{place}: id must be a text and is {shown(one.id)}")
    return replace(one, choices=tuple(one.choices), answer=int(right))


def _kind(value: Any) -> str:
    """What an object is, in words."""
    if isinstance(value, Task):
        return "a Task, which is one already"
    if isinstance(value, Mapping):
        return f"a mapping ({', '.join(map(str, list(value)[:4]))}); give one of its parts"
    kind = type(value)
    of = "" if kind.__module__ == "builtins" else f"{kind.__module__.split('.')[0]} "
    return f"{'an' if (of + kind.__name__)[0] in 'aeiou' else 'a'} {of}{kind.__name__}"
