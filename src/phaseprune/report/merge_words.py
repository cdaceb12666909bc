"""Blocks that took others in, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phaseprune.decision.laco import merged_words


def merged_lines(steps: Sequence[Mapping[str, Any]], result: Mapping[str, Any]) -> list[str]:
    """Say what the weights of merged blocks are a sum of at the chosen step.

    Args:
        steps: The lines of `steps.jsonl`.
        result: The result of a finished prune run.

    Returns:
        One sentence; none of a run that merged nothing.
    """
    merged = steps[result["chosen_step"]].get("merged")
    if not merged:
        return []
    return [f"Weights of blocks that took removed ones in: {'; '.join(merged_words(merged))}."]
