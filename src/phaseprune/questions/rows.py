"""One row of a data set or a file: its fields by name, its options, its right answer.

What is wrong with a row is said with its place and its field; nothing here guesses.
"""

from __future__ import annotations

import ast
import json
import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from string import ascii_uppercase
from typing import Any

from phaseprune.errors import UserError, shown

#: Most options of a question: there are no more letters.
MOST_OPTIONS = len(ascii_uppercase)
#: Stands behind the first of columns that count on: ``A…`` is A, B, C and so on.
ON = "…"
#: Names of a text and of a label, where options are a list of objects.
_TEXTS = ("text", "value", "content", "atext", "option", "choice", "answer")
_LABELS = ("label", "key", "aid", "id", "letter")
_MARKED = re.compile(r"[(\[]\s*([^()\[\]\s]{1,3})\s*[)\]]|([^()\[\]\s]{1,3})[).:]")
_ARRAY = re.compile(r"array\((\[.*?\])(?:,\s*dtype=[^)]*)?\)", re.DOTALL)
#: A text of Python, and an element of a list that NumPy writes without commas.
_STRING = r"""[uU]?(?:'(?:[^'\\]|\\[\s\S])*'|"(?:[^"\\]|\\[\s\S])*")"""
_ELEMENT = rf"""{_STRING}|[^\s,'"\[\](){{}}:]+"""
_WITHOUT_COMMAS = re.compile(rf"\[\s*(?:{_ELEMENT})(?:\s+(?:{_ELEMENT}))+\s*\]")


@dataclass(frozen=True)
class Unreadable:
    """Stands for a value that its file holds and Python cannot; ``reason`` says why."""

    reason: str


class Record:
    """A row by the names of its fields.

    A name is found as it is written; else without regard to case, blanks and marks (``Correct
    Answer`` is ``correct_answer``); else as a path into an object (``question.stem``) or into
    each of a list of them (``choices.is_correct``, a list then).

    Attributes:
        row: the row itself.
        place: where it stands, for errors.
    """

    def __init__(self, row: Mapping[str, Any], place: str):
        self.row, self.place = row, place

    def refuse(self, text: str) -> UserError:
        """The error that says where and what."""
        return UserError(f"{self.place}: {text}")

    def name(self, name: str) -> str | None:
        """The field's name as the row writes it; None where it has none of that name."""
        top, below = self._path(name)
        return top if not below else f"{top}.{below}"

    def get(self, name: str) -> Any:
        """A field's value; None where it is null or not there."""
        top, below = self._path(name)
        value = None if top is None else self.row[top]
        if not below:
            return value
        found = [one.get(below) for one in self._objects(top)]
        return found[0] if isinstance(value, Mapping) else found

    def _path(self, name: str) -> tuple[str | None, str]:
        """The row's own field, and the path below it; None where there is none."""
        if name in self.row:
            return name, ""
        if plain := _plain_names(tuple(self.row)).get(plain_name(name)):
            return plain, ""
        head, dot, rest = name.partition(".")
        top = self._path(head)[0] if dot else None
        below = set() if top is None else {one.name(rest) for one in self._objects(top)}
        return (top, below.pop()) if len(below) == 1 and None not in below else (None, "")

    def _objects(self, top: str) -> list[Record]:
        value = self.row[top]
        inner = [value] if isinstance(value, Mapping) else value
        if not isinstance(inner, list) or not all(isinstance(one, Mapping) for one in inner):
            return []
        return [Record(one, self.place) for one in inner]

    def value(self, name: str) -> Any:
        """A field's value.

        Raises:
            UserError: it is null or not there, or cannot be read.
        """
        value = self.get(name)
        if value is None:
            fields = ", ".join(map(str, self.row)) or "none"
            raise self.refuse(f"the field {name!r} is missing (fields found: {fields})")
        if isinstance(value, Unreadable):
            raise self.refuse(
                f"the field {name!r} cannot be read ({value.reason}); "
                "write it as a text or a number"
            )
        return value

    def text(self, name: str, what: str = "") -> str:
        """A field that is a text, or a list of them (its lines).

        Args:
            name: the field's.
            what: what it is called in an error; by default the field's name.

        Raises:
            UserError: it is anything else.
        """
        value = self.value(name)
        if isinstance(value, list) and value and all(isinstance(line, str) for line in value):
            value = "\n".join(value)
        if not isinstance(value, str):
            raise self.refuse(
                f"{what or f'the field {name!r}'} must be a text and is {shown(value)}"
            )
        return value

    def fill(self, template: str | Sequence[str]) -> str:
        """A field, a template with fields in braces, or those of several fields that it has."""
        if not isinstance(template, str):
            names = [name for name in template if not is_blank(self.get(name))]
            return "\n".join(self.text(name, "the question") for name in names)
        if "{" not in template:
            return self.text(template, "the question")
        return re.sub(r"\{([^{}]+)\}", lambda found: self.text(found[1]), template)

    def counted(self, first: str) -> list[str]:
        """The fields that count on from a first one (``A``, ``option1``), as far as they go."""
        stem, start = first[:-1], first[-1]
        names = []
        for step in range(MOST_OPTIONS):
            name = stem + (str(int(start) + step) if start.isdigit() else chr(ord(start) + step))
            if self.name(name) is None:
                break
            names.append(name)
        return names


@lru_cache(maxsize=4096)
def plain_name(name: str) -> str:
    """A field's name without case, blanks and marks."""
    return re.sub(r"[\W_]+", "", name).casefold()


@lru_cache(maxsize=1024)
def _plain_names(names: tuple) -> dict[str, str]:
    """Names by their plain ones; of two alike the first."""
    found: dict[str, str] = {}
    for name in names:
        if isinstance(name, str) and plain_name(name):
            found.setdefault(plain_name(name), name)
    return found


def encodable(text: str) -> bool:
    """Whether a text can be written at all: half a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class Options:
    """The options of a question.

    Attributes:
        texts: of the options.
        labels: what the row itself labels them with.
        fields: the field of each, where they have one each.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...] | None = None
    fields: tuple[str, ...] = ()


def read_options(record: Record, columns: str | Sequence[str]) -> Options:
    """The options of a row.

    Args:
        record: the row.
        columns: a field with all of them, ``A…`` for fields that count on, or one field each. A
            field may hold a list of texts; of objects with ``text`` and ``label``; ARC's
            ``{"text": […], "label": […]}``; label -> text; or any of these as a text of JSON or of
            Python. Of one field each, those that are empty at the end are none.

    Raises:
        UserError: says what is wrong with which option.
    """
    if isinstance(columns, str) and not columns.endswith(ON):
        return _of_one_field(record, columns, record.value(columns))
    names = record.counted(columns[:-1]) if isinstance(columns, str) else list(columns)
    values = [record.get(name) for name in names]
    for name in names:
        if record.name(name) is None:
            record.value(name)
    while values and is_blank(values[-1]):
        values.pop()
    texts = tuple(_option(record, i, value) for i, value in enumerate(values))
    return Options(texts, fields=tuple(names[: len(texts)]))


def is_blank(value: Any) -> bool:
    """Whether a field holds nothing: null, NaN (pandas' null), a blank text or an empty list."""
    return (
        value is None
        or value == []
        or (isinstance(value, str) and not value.strip())
        or (isinstance(value, float) and value != value)
    )


def _option(record: Record, number: int, value: Any) -> str:
    if value is None:
        raise record.refuse(f"choice {number} is missing (null); give it a text or remove it")
    if isinstance(value, float) and not math.isfinite(value):
        raise record.refuse(
            f"choice {number} is {'NaN' if value != value else value} and must be "
            "a text; give it one or remove it"
        )
    if not isinstance(value, str | int | float):
        why = value.reason if isinstance(value, Unreadable) else shown(value)
        raise record.refuse(f"choices must be a list of texts, and choice {number} is not: {why}")
    return value if isinstance(value, str) else str(value)


def _of_one_field(record: Record, field: str, value: Any) -> Options:
    told = named("choices", field)
    if isinstance(value, str):
        value = _written(record, field, value)
    if isinstance(value, Mapping):
        plain = {str(key).casefold(): key for key in value}
        if "text" in plain:
            return _labelled(record, field, value[plain["text"]], value.get(plain.get("label")))
        kept = {key: one for key, one in value.items() if one is not None}
        texts = tuple(_option(record, i, one) for i, one in enumerate(kept.values()))
        return Options(texts, _labels(record, field, list(kept)))
    if not isinstance(value, list):
        raise record.refuse(f"{told} must be a list of texts, not {shown(value)}")
    if value and all(isinstance(one, Mapping) for one in value):
        text = next((name for name in _TEXTS if all(name in one for one in value)), None)
        label = next((name for name in _LABELS if all(name in one for one in value)), None)
        if text is None:
            raise record.refuse(
                f"{told} must be texts or objects with a text, and the first is {shown(value[0])}"
            )
        labels = None if label is None else [one[label] for one in value]
        return _labelled(record, field, [one[text] for one in value], labels)
    return Options(tuple(_option(record, i, one) for i, one in enumerate(value)))


def columns_text(given: Mapping[str, Any]) -> str:
    """What ``--columns`` takes, of fields by role: ``question=q,choices=a+b``."""
    return ",".join(
        f"{role}={field if isinstance(field, str) else '+'.join(field)}"
        for role, field in given.items()
    )


def columns_option(given: Mapping[str, Any], joint: str = "=") -> str:
    """``--columns`` as errors name it; with a blank as ``joint``, as it is typed."""
    return f"--columns{joint}{shlex.quote(columns_text(given))}"


def named(role: str, field: str) -> str:
    """What a field is called in an error: by its role, and by its name where that is another."""
    return role if role.endswith(field) else f"{role} ({field})"


def _labelled(record: Record, field: str, texts: Any, labels: Any) -> Options:
    if not isinstance(texts, list):
        raise record.refuse(f"{field}.text must be a list of texts and is {shown(texts)}")
    options = tuple(_option(record, i, one) for i, one in enumerate(texts))
    return Options(options, None if labels is None else _labels(record, field, labels, len(texts)))


def _labels(record: Record, field: str, labels: Any, count: int | None = None) -> tuple[str, ...]:
    if not isinstance(labels, list):
        raise record.refuse(f"the labels ({field}.label) must be a list and are {shown(labels)}")
    if count is not None and len(labels) != count:
        raise record.refuse(
            f"{named('choices', field)} has {count} texts and {len(labels)} labels; give each text "
            "one"
        )
    words = [word_of(label) for label in labels]
    for label, word in zip(labels, words, strict=True):
        if word is None or isinstance(label, list):
            raise record.refuse(f"the labels ({field}) must be texts and one is {shown(label)}")
        if words.count(word) > 1:
            raise record.refuse(f"the label {word!r} ({field}) stands there twice")
    return tuple(words)


def _written(record: Record, field: str, text: str) -> Any:
    """A list or an object that is written as a text, as CSV files have it."""
    for read in (json.loads, _of_python):
        try:
            value = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        if isinstance(value, list | dict):
            return value
    raise record.refuse(
        f"{named('choices', field)} must be a list, or a JSON list as a text like "
        f'["red", "blue"], not {shown(text)}'
    )


def _of_python(text: str) -> Any:
    """A literal of Python, in which lists may be NumPy's, ``['red' 'blue']``, and hold ``nan``.

    Raises:
        ValueError, SyntaxError, RecursionError, MemoryError, TypeError: it is anything else.
    """
    text = _ARRAY.sub(r"\1", text.strip())
    if _WITHOUT_COMMAS.fullmatch(text):
        text = f"[{', '.join(re.findall(_ELEMENT, text[1:-1]))}]"
    tree = ast.parse(text, mode="eval")
    for node in ast.walk(tree):
        # Python would make one text of two that lack a comma between them.
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and not re.fullmatch(_STRING, ast.get_source_segment(text, node) or ""):
            raise ValueError("texts without a comma between them")
    return ast.literal_eval(_Nan().visit(tree))


class _Nan(ast.NodeTransformer):
    """``nan`` as the number, which no literal of Python is."""

    def visit_Name(self, node: ast.Name) -> ast.AST:  # noqa: N802
        return ast.Constant(math.nan) if node.id.casefold() == "nan" else node


def read_scores(record: Record, columns: str | tuple[str, str]) -> tuple[tuple[str, ...], int]:
    """Options with a score each, and the right one, which has the only score that is not 0.

    Args:
        record: the row.
        columns: a field with text -> score, or with TruthfulQA's
            ``{"choices": […], "labels": […]}``; or two fields, with a list of texts and one of
            scores.

    Raises:
        UserError: there is not exactly one right option.
    """
    if isinstance(columns, str):
        value = record.value(columns)
        value = _written(record, columns, value) if isinstance(value, str) else value
        if isinstance(value, Mapping) and {"choices", "labels"} <= {*value}:
            texts, scores = value["choices"], value["labels"]
        elif isinstance(value, Mapping):
            kept = {text: score for text, score in value.items() if score is not None}
            texts, scores = [*kept], [*kept.values()]
        else:
            raise record.refuse(f"{columns} must be texts with a score each and is {shown(value)}")
    else:
        texts, scores = (record.value(name) for name in columns)
    if not isinstance(texts, list) or not isinstance(scores, list) or len(texts) != len(scores):
        raise record.refuse(f"each option ({columns}) must have one score")
    right = [number for number, score in enumerate(scores) if score]
    if len(right) != 1:
        raise record.refuse(
            f"{len(right)} options are right ({columns}), and a question needs exactly one"
        )
    return tuple(_option(record, i, text) for i, text in enumerate(texts)), right[0]


@dataclass(frozen=True)
class Item:
    """What a schema reads of a row.

    Attributes:
        record: the row.
        text: what is asked.
        options: to choose from.
        given: the fields that say the right option, with their values. Empty where ``right`` says
            it.
        right: the right option's place.
        pairs: as of ``Question``.
    """

    record: Record
    text: str
    options: Options
    given: tuple[tuple[str, Any], ...] = ()
    right: int | None = None
    pairs: tuple[tuple[str, str], ...] | None = None

    def by_label(self, value: Any, first: int = 0) -> int | None:
        """The option that a value names by its label or its number; None for none.

        The row's own labels come first, by value and not by type: "2" and 2 are the same label.
        Numbers are places only where no own label is one.

        Args:
            value: a label or a number; a list of the only one, or one of noughts and a single one.
            first: the number of the first option.
        """
        count = len(self.options.texts)
        if isinstance(value, list) and len(value) == count > 1:
            right = [number for number, one in enumerate(value) if one == 1]
            return right[0] if len(right) == 1 and value.count(0) == count - 1 else None
        word = word_of(value)
        if word is None:
            return None
        for same in (str, _bare, lambda word: _by_value(_bare(word))):
            known = [same(label) for label in self.labels]
            if known.count(same(word)) == 1:
                return known.index(same(word))
        number = as_number(_bare(word))
        if number is not None:
            return number - first if not self.numbered and 0 <= number - first < count else None
        # Names of a letter or a number alone would be taken for labels and places.
        fields = [plain_name(field) for field in self.options.fields]
        if fields.count(plain_name(word)) != 1 or len(plain_name(word)) < 2:
            return None
        return fields.index(plain_name(word))

    @property
    def value(self) -> Any:
        """What the first of the fields says; None where there is none."""
        return self.given[0][1] if self.given else None

    @property
    def labels(self) -> tuple[str, ...]:
        """The row's own labels, else letters."""
        return self.options.labels or tuple(ascii_uppercase[: len(self.options.texts)])

    @property
    def numbered(self) -> bool:
        """Whether a number is a label, and so no place."""
        return any(as_number(_bare(label)) is not None for label in self.labels)

    def by_text(self, value: Any) -> int | None:
        """The first option whose text a value is; None for none, or for several but for blanks."""
        word = word_of(value)
        if word is None:
            return None
        texts = self.options.texts
        for same in (str, lambda text: " ".join(text.split()), lambda text: _by_value(text, str)):
            wanted = same(value if isinstance(value, str) else word)
            found = {text for text in texts if same(text) == wanted}
            if found:
                return texts.index(found.pop()) if len(found) == 1 else None
        return None

    def answer(
        self, found: int | None, first: int = 0, kind: str | None = None, hint: str = ""
    ) -> int:
        """The right option, where no two fields name different ones.

        Args:
            found: the option that the first of the fields names.
            first: the number of the first option.
            kind: how it must be named, one of ``schemas.ANSWER_KINDS``; None for any way.
            hint: what is added to the error where no option is named.

        Raises:
            UserError: no option, or several.
        """
        others = self.given
        if self.right is not None:
            found, told = self.right, f"the right option {shown(self.options.texts[self.right])}"
        else:
            (field, value), *others = self.given
            told = f"{field} {shown(value)}"
            if found is None:
                raise self.record.refuse(self._not_among(field, value, first, kind) + hint)
        for other, value in others:
            # Where the right option has a field of its own, the others' order is nobody's.
            places = None if self.right is not None else self.by_label(value, first)
            readings = {places, self.by_text(value)} - {None}
            if readings and found not in readings:
                counts = (
                    ""
                    if self.right is not None
                    else (f", or, if {field} counts, give {columns_option({'answer': field})}")
                )
                raise self.record.refuse(
                    f"{told} and {other} {shown(value)} name different options; mend the row"
                    + counts
                )
        return found

    def _not_among(self, field: str, value: Any, first: int, kind: str | None) -> str:
        count = len(self.options.texts)
        told = named("the answer", field)
        if value is None or value == "" or str(value).isspace():
            return f"{told} is empty; questions without a right answer cannot be used"
        if isinstance(value, list):
            return (
                f"{told} is the list {shown(value)}, and a question needs exactly one right option"
            )
        ways = []
        if kind != "text":
            if not self.numbered:
                ways.append(f"a {first}-based index ({first} to {first + count - 1})")
            ways.append(f"a label ({', '.join(self.labels)})")
        if kind in (None, "text"):
            ways.append("an option's text")
        known = " or ".join(filter(None, (", ".join(ways[:-1]), ways[-1])))
        return f"{told} {shown(value)} is not among the {count} choices; give {known}"


def word_of(value: Any) -> str | None:
    """A label, number or text as a text that does not tell 2 from 2.0 or "2"; None for others.

    Of a list with a single one it is that one's.
    """
    if isinstance(value, list):
        return word_of(value[0]) if len(value) == 1 and not isinstance(value[0], list) else None
    if isinstance(value, float) and math.isfinite(value):
        value = int(value) if value.is_integer() else str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < 10**18 else None
    return value.strip() or None if isinstance(value, str) else None


def _bare(label: str) -> str:
    """A label without brackets and marks: (B), [B], B), B. and B: are B."""
    marked = _MARKED.fullmatch(label)
    return label if marked is None else marked[1] or marked[2]


def as_number(word: str) -> int | None:
    """A whole number in plain digits, also ``1.0``; no other script's, and no superscripts."""
    return int(word.split(".")[0]) if re.fullmatch(r"[+-]?[0-9]{1,18}(\.0+)?", word) else None


def _by_value(word: str, other: Callable[[str], str] = str.casefold) -> str:
    """The same text for 2, 2.0 and 02; of what is no number, its other form."""
    number = as_number(word.strip())
    return other(word) if number is None else str(number)
