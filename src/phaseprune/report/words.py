"""Numbers and findings in words, the same in the terminal and on the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from phaseprune.decision.intervals import questions_needed
from phaseprune.decoder.items import NOUNS

DASH = "–"
PHASE_NAMES = {"silent": "Silent", "decisive": "Decisive"}
#: Under tables of letters.
DEBIASED_NOTE = (
    "debiased: less the label prior, how much a letter is preferred whatever the question says"
)


def _missing(value: float | None) -> bool:
    return value is None or not math.isfinite(value)


def percent(value: float | None, digits: int = 1) -> str:
    """Write a share as per cent, without the sign: 0.861 becomes ``86.1``.

    Args:
        value: The share, or None where there is none.
        digits: Digits after the point.

    Returns:
        The number, or a dash.
    """
    if _missing(value):
        return DASH
    text = f"{100 * value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def signed(value: float | None, digits: int = 2) -> str:
    """Write a Decision Margin with its sign.

    Args:
        value: The margin, or None where there is none.
        digits: Digits after the point.

    Returns:
        The number, or a dash.
    """
    if _missing(value):
        return DASH
    text = f"{value:+.{digits}f}"
    return text.lstrip("-+") if float(text) == 0 else text


def decimal(value: float | None, digits: int = 2) -> str:
    """Write a number that has no sign of its own: ``0.93``, ``-0.02``, or a dash for none."""
    if _missing(value):
        return DASH
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def percent_with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    """Write a share and its interval in words: ``86.1 % (95 % CI 82.0 to 89.2)``.

    Args:
        value: The share.
        interval: Its lower and upper bound, or None.

    Returns:
        The words, or a dash.
    """
    if _missing(value):
        return DASH
    return f"{percent(value)} %{interval_words(interval, percent)}"


def p_in_words(value: float | None) -> str:
    """Write a p-value: ``p = 0.03``, ``p < 0.001``."""
    if value is None:
        return f"p {DASH}"
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def points(value: float) -> str:
    """Write a difference of shares in points, or a rise in per cent, with its sign: ``+3.1``."""
    return signed(100 * value, 1)


def interval_words(interval: Sequence[float] | None, write: Callable[[float], str] = str) -> str:
    """Write an interval: `` (95 % CI 8 to 9)``, with a blank before it, or nothing.

    Args:
        interval: Its lower and upper bound, or None.
        write: Writes a bound.

    Returns:
        The words.
    """
    return f" (95 % CI {' to '.join(map(write, interval))})" if interval else ""


def ends_with_intervals(
    ends: Sequence[int], intervals: Sequence[Sequence[int]], place: Callable[[int], str] = str
) -> list[str]:
    """Both ends of a rise or a fall, each with its interval: ``6 (95 % CI 5 to 6)``.

    Args:
        ends: The ends.
        intervals: Their 95 % intervals.
        place: Writes an end.

    Returns:
        The words of each.
    """
    return [
        f"{place(end)}{interval_words(interval)}"
        for end, interval in zip(ends, intervals, strict=True)
    ]


def these_questions(questions: int | None) -> str:
    """``these 300 questions``, or without the number where it is not known."""
    return f"these {questions} questions" if questions else "these questions"


def enough_words(value: float, interval: Sequence[float] | None, questions: int | None) -> str:
    """Say how many questions would do where these cannot tell: ``; about 640 would tell``.

    Args:
        value: How far the estimate is from where the verdict turns.
        interval: The 95 % interval of that.
        questions: How many questions both are of.

    Returns:
        The words with a semicolon before them; nothing where no number can be told.
    """
    needed = questions and questions_needed(value, interval, questions)
    if not needed:
        return ""
    needed = max(needed, questions + 1)
    # Two digits: the standard error behind it is no better known.
    unit = 10 ** max(len(str(needed)) - 2, 0)
    return f"; about {-(-needed // unit) * unit:,} would tell"


def plural(count: int, noun: str) -> str:
    """Count something: ``1 block``, ``2 blocks``.

    Args:
        count: How many.
        noun: What, in the singular.

    Returns:
        The words.
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


#: What a manifest counts of the questions as they were put, and what should be known of these.
COUNTED_QUESTIONS = {
    "truncated_questions": "longer than the model takes: cut on the left, as lm-eval cuts",
    "duplicated_options": "with an option that stands twice: the later one is never decided for",
    "begun_options": "with an option that begins another: by plain sums the longer one is hardly "
    "ever decided for; compare by --length-norm chars",
}


def input_lines(counts: Mapping[str, Any]) -> list[str]:
    """A sentence for each of ``COUNTED_QUESTIONS`` that is not 0 in a manifest."""
    return [
        f"{plural(counts[name], 'question')} {text}"
        for name, text in COUNTED_QUESTIONS.items()
        if counts.get(name)
    ]


def blocks_in_words(blocks: Sequence[int]) -> str:
    """Name blocks: ``blocks 0-6`` when they follow each other, else ``blocks 9, 3, 4``.

    Args:
        blocks: Original indices; their order is kept.

    Returns:
        The words; both ends belong to the blocks.
    """
    if not blocks:
        return "no blocks"
    if len(blocks) == 1:
        return f"block {blocks[0]}"
    if list(blocks) == list(range(blocks[0], blocks[0] + len(blocks))) and len(blocks) > 2:
        return f"blocks {blocks[0]}-{blocks[-1]}"
    return "blocks " + ", ".join(str(block) for block in blocks)


def nouns_of(steps: Sequence[Mapping[str, Any]], result: Mapping[str, Any] | None) -> str:
    """What a run removes one at a time, in the plural: ``blocks``, ``halves``, ``MLP halves``.

    Args:
        steps: The lines of `steps.jsonl`; an unfinished run is told by the first removal.
        result: The result of a prune run, or None.

    Returns:
        The noun.
    """
    halves = any(isinstance(step["removed"], str) for step in steps)
    return NOUNS[(result or {}).get("granularity") or ("sublayer" if halves else "block")]


def exported_line(exported: Mapping[str, Any]) -> str:
    """Say where a checkpoint is and how it was proved."""
    return (
        f"exported: {exported['path']}, reloaded from disk, max |Δ logits| "
        f"{exported['max_abs_logit_difference']:.2g}"
    )
