"""How far Option Frequency is from the gold shares, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def with_bounds(figure: Mapping[str, float]) -> str:
    """Write a distance and its interval: ``0.52 (95 % CI 0.48 to 0.56)``.

    Args:
        figure: Its ``mean``, ``ci_low`` and ``ci_high``.

    Returns:
        The words.
    """
    text = f"{figure['mean']:.2f} (95 % CI {figure['ci_low']:.2f} to {figure['ci_high']:.2f})"
    return text.replace("-0.00", "0.00")


def frequency_line(trace: Mapping[str, Any]) -> str | None:
    """Say how far Option Frequency is from the gold shares: by phase, else at the output.

    Args:
        trace: The content of `trace.json`.

    Returns:
        A sentence or two; None of a trace that an older version made.
    """
    distance = trace.get("option_frequency_distance")
    if not distance:
        return None
    phases = distance["phases"]
    if not phases:
        last = {name: distance[name][-1] for name in ("mean", "ci_low", "ci_high", "noise")}
        return (
            f"Option Frequency is {with_bounds(last)} from the gold shares at the output (0 is "
            f"equal, 1 is apart). Equal shares would show {last['noise']:.2f} by sampling alone."
        )
    silent, decisive, difference = (phases[n] for n in ("silent", "decisive", "difference"))
    verdict = "significant" if difference["significant"] else "not significant"
    return (
        f"Option Frequency is {with_bounds(silent)} from the gold shares in the Silent Phase and "
        f"{with_bounds(decisive)} in the Decisive Phase (0 is equal, 1 is apart); the difference "
        f"is {verdict}. Equal shares would show {silent['noise']:.2f} and "
        f"{decisive['noise']:.2f} by sampling alone."
    )


def frequency_caption(trace: Mapping[str, Any]) -> str:
    """Say the distance at both ends of the model.

    Args:
        trace: The content of `trace.json`.

    Returns:
        A sentence with a blank before it; nothing of a trace that an older version made.
    """
    distance = trace.get("option_frequency_distance")
    if not distance:
        return ""
    first, last = distance["mean"][0], distance["mean"][-1]
    return (
        f" Half the sum of the differences from gold is {first:.2f} at readout 0 and {last:.2f} at "
        "the output."
    )
