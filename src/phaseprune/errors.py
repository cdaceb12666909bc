"""The one error that is the user's to mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class UserError(Exception):
    """Bad input or an unsupported model: one sentence that says what, where, and what to do.

    The command line prints it without a traceback and exits with 2.
    """


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
