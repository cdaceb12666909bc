"""Dataclasses from the plain JSON values that they were written as, by their fields' types."""

from __future__ import annotations

import types
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np


def rebuilt(kind: Any, value: Any) -> Any:
    """A value as its type has it: lists become arrays and tuples, mappings dataclasses.

    Args:
        kind: a dataclass, or the type of a field.
        value: plain JSON values. Of a dataclass, fields that are not among them take their
            defaults, and null stands for NaN where the type is a number or an array.

    Raises:
        KeyError: a field without a default is missing.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return rebuilt(next(one for one in inner if one is not type(None)), value)
    if is_dataclass(kind):
        hints = _hints(kind)
        return kind(
            **{
                field.name: rebuilt(hints[field.name], value[field.name])
                for field in fields(kind)
                if field.name in value or field.default is MISSING
            }
        )
    if kind is np.ndarray:
        return np.array(value, dtype=float) if _has_none(value) else np.array(value)
    if origin is tuple:
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        return tuple(rebuilt(one, part) for one, part in zip(kinds, value, strict=True))
    if kind is float:
        return float("nan") if value is None else value
    return value


@lru_cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _has_none(value: Any) -> bool:
    return any(map(_has_none, value)) if isinstance(value, list) else value is None
