"""Halves of blocks in words, beside whole blocks: what a run with ``--granularity`` removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phaseprune.decoder.items import NOUNS, item_in_words
from phaseprune.report import words


def granularity_of(steps: Sequence[Mapping[str, Any]], result: Mapping[str, Any] | None) -> str:
    """What a run removes one at a time; of an unfinished one as its first step tells."""
    if result and result.get("granularity"):
        return result["granularity"]
    return "sublayer" if any(isinstance(step["removed"], str) for step in steps) else "block"


def nouns_of(steps: Sequence[Mapping[str, Any]], result: Mapping[str, Any] | None) -> str:
    """The same in words, in the plural: ``blocks``, ``halves``, ``attention halves``."""
    return NOUNS[granularity_of(steps, result)]


def removed_line(steps: Sequence[Mapping[str, Any]], result: Mapping[str, Any]) -> str:
    """Say how many blocks or halves the chosen step removed, of which phase, and what it means.

    Args:
        steps: The lines of `steps.jsonl`.
        result: The result of a finished prune run.

    Returns:
        One or two sentences.
    """
    nouns = nouns_of(steps, result)
    if nouns == "blocks":
        return words.removed_line(steps, result)
    removed, total = result["removed"], len(result["removed"]) + len(result["kept"])
    if not removed:
        return f"None of {total} {nouns} was removed."
    phases = [step["phase"] for step in steps if step["removed"] in removed]
    parts = [
        f"{phases.count(phase)} {name}"
        for phase, name in words.PHASE_NAMES.items()
        if phase in phases
    ]
    text = (
        f"{len(removed)} of {total} {nouns} {'was' if len(removed) == 1 else 'were'} removed"
        + (f" ({', '.join(parts)})" if parts else "")
        + f": {', '.join(map(item_in_words, removed))}."
    )
    whole = result["whole_blocks"]
    if whole:
        gone = words.blocks_in_words(whole)
        have = "has lost both halves and is" if len(whole) == 1 else "have lost both halves and are"
        text += f" {gone[0].upper()}{gone[1:]} {have} deleted in an exported checkpoint."
    if result["zeroed"]:
        text += (
            f" The weights of the {'other' if whole else 'removed'} "
            f"{'half' if len(result['zeroed']) == 1 else 'halves'} become zeros there"
            f"{'' if whole else ' when it is exported'}, which saves neither bytes nor time unless "
            "a runtime skips them."
        )
    return text

