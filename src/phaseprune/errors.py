"""The one error that is the user's to mend."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

#: A command in backticks, which stays as it is; or an option, maybe with ``no-`` or ``=value``.
_OPTION = re.compile(
    r"`[^`]*`|(?<![\w-])--(?P<no>no-)?(?P<name>[a-z][a-z-]*[a-z])"
    r"(?:=(?P<value>'[^']*'|[^\s;:()]*[^\s,;:().]))?"
)


class UserError(Exception):
    """Bad input or an unsupported model: one sentence that says what, where, and what to do.

    It is written with the options of the command line, as ``--keep-accuracy`` or, with a value,
    ``--dtype=float32``. As text (``str``) it names the arguments of Python in place of them:
    ``keep_accuracy``, ``dtype='float32'``, and ``stream=False`` for ``--no-stream``. The command
    line prints ``typed``, without a traceback, and exits with 2.
    """

    @property
    def typed(self) -> str:
        """The sentence with options as they are typed."""
        return _OPTION.sub(_as_typed, super().__str__())

    def __str__(self) -> str:
        return _OPTION.sub(_as_argument, super().__str__())


def _as_typed(found: re.Match[str]) -> str:
    option, is_given, value = found[0].partition("=")
    return f"{option} {value}" if is_given and found["name"] else found[0]


def _as_argument(found: re.Match[str]) -> str:
    if not found["name"]:
        return found[0]
    name, value = found["name"].replace("-", "_"), found["value"]
    if found["no"]:
        return f"{name}=False"
    if value is None:
        return name
    plain = value.startswith("'") or re.fullmatch(r"[-+\d.,e]+", value)
    return f"{name}={value}" if plain else f"{name}={value!r}"


def near_matches(word: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x' or 'y'?``, or an empty string when nothing is near."""
    found = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(repr(name) for name in found)}?" if found else ""


def shown(value: Any) -> str:
    """A value as an error shows it, cut where it is long."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # too deep, or a number with too many digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:59] + "…"
