"""How long work tells its progress, without knowing who is listening."""

from __future__ import annotations

from collections.abc import Callable

#: Called as ``progress(label, done, total)``; ``done`` and ``total`` are in the same unit of work.
Progress = Callable[[str, float, float], None]


def silent(label: str, done: float, total: float) -> None:
    """Listen to nothing."""
