"""What single questions and groups of questions say of where a model decides, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def depth_lines(trace: Mapping[str, Any]) -> list[str]:
    """Say at which readouts questions, and groups of them, are decided.

    Args:
        trace: The content of `trace.json`.

    Returns:
        At most two sentences; none of a trace that an older version wrote.
    """
    if not trace.get("decision_depth"):
        return []
    lines = [depth_line(trace["decision_depth"])]
    groups = [
        part
        for name, of in (("by_group", "groups"), ("by_option_count", "numbers of options"))
        if (part := _groups(trace.get(name) or {}, of))
    ]
    return lines + ([f"Transitions (Holm): {'; '.join(groups)}."] if groups else [])


def depth_line(depth: Mapping[str, Any]) -> str:
    """Say at which readout single questions are decided for good, and how steadily.

    Args:
        depth: `decision_depth` of `trace.json`.

    Returns:
        One sentence; in brackets the quartiles.
    """
    flips = f"{depth['mean_flips']:.1f} flips"
    never = f"{depth['never_right_count']} never right"
    if not depth["quartiles"]:
        return f"By question: none right at the output, {flips}, {never}."
    low, middle, high = depth["quartiles"]
    return f"By question: right for good from readout {middle} [{low}, {high}], {flips}, {never}."


def _groups(groups: Mapping[str, Any], of: str) -> str | None:
    """How many groups have a transition, and where."""
    if not groups:
        return None
    found = [g["transition"]["readout"] for g in groups.values() if g["transition"]["found"]]
    where = ""
    if found:
        low, high = min(found), max(found)
        where = f" (readout {low})" if low == high else f" (readouts {low} to {high})"
    return f"{len(found)} of {len(groups)} {of}{where}"
