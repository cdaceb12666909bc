"""Options are checked against the types that the functions which take them state.

A file says ``trust_remote_code: 'false'`` where false is meant, and Python takes a text that is not
empty as true. So no option that comes from outside is used before its type is known; what the types
are stands once, in the functions' own signatures.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from inspect import Parameter, signature
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from phaseprune.errors import UserError, shown

#: In words what an option of a type must be.
WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
}
#: The same of several.
PLURAL = {int: "whole numbers, as 2,4,6", float: "numbers, as 0.01,0.05", str: "names, as a,b"}


def option_types(takes: Callable | type) -> dict[str, Any]:
    """The options that a function takes by name, or that a dataclass holds, with their types."""
    hints = get_type_hints(takes)
    if is_dataclass(takes):
        return {one.name: hints[one.name] for one in fields(takes)}
    return {
        name: hints[name]
        for name, one in signature(takes).parameters.items()
        if one.kind is Parameter.KEYWORD_ONLY
    }


def check_options(takes: Callable | type, given: Mapping[str, Any]) -> None:
    """Refuse options of another type than a function or a dataclass states.

    Args:
        takes: the function or dataclass.
        given: values by name, as its ``locals()``; other names are passed over.

    Raises:
        UserError: says which option, what it must be and what it is.
    """
    for name, kind in option_types(takes).items():
        if name in given:
            checked("--" + name.replace("_", "-"), kind, given[name])


def checked(option: str, kind: Any, value: Any) -> Any:
    """A value as an option takes it.

    Nothing is taken for what it is not: no text and no number for true or false, no truth value for
    a number. A list may be one value, or a text as ``a,b``.

    Args:
        option: what it is called, for the sentence.
        kind: its type: one of ``WORDS``, a tuple of these, a mapping, or a union.
        value: what is given.

    Raises:
        UserError: it is of another type.
    """
    kinds = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    for one in kinds:
        if _is_a(value, one):
            return value
    for one in kinds:
        if get_origin(one) is tuple:
            found = _as_tuple(value, get_args(one)[0])
            if found is not None:
                return found
    quotes = str in kinds and not isinstance(value, list | dict) and value is not None
    raise UserError(
        f"{option} must be {_words(kinds)} and is {_short(value)}"
        + ("; put it in quotes" if quotes else "")
    )


def _is_a(value: Any, kind: Any) -> bool:
    if kind is Any:
        return True
    if kind is type(None):
        return value is None
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real)
    return isinstance(value, get_origin(kind) or kind) and get_origin(kind) is not tuple


def _as_tuple(value: Any, kind: type) -> tuple | None:
    """A list of values of one type; None where it is none.

    A number may stand as a text in it: YAML takes 1e-3, without a dot, for one.
    """
    parts = value.split(",") if isinstance(value, str) else value
    found = []
    for part in parts if isinstance(parts, list | tuple) else [parts]:
        if isinstance(part, str):
            try:
                part = kind(part.strip())
            except ValueError:
                return None
        if not _is_a(part, kind):
            return None
        found.append(part)
    return tuple(found)


def _words(kinds: tuple) -> str:
    words = []
    for one in kinds:
        if get_origin(one) is tuple:
            words.append(f"a list of {PLURAL[get_args(one)[0]]}")
        elif one in WORDS:
            words.append(WORDS[one])
        elif one is not type(None):
            words.append("names with values")
    return " or ".join(dict.fromkeys(words))


def _short(value: Any) -> str:
    return "nothing" if value is None else shown(value)
