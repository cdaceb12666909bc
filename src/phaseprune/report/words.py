"""Numbers and findings in words, the same in the terminal and on the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from phaseprune.decision.intervals import questions_needed

DASH = "–"
PHASE_NAMES = {"silent": "Silent", "decisive": "Decisive"}


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
    if not interval:
        return f"{percent(value)} %"
    low, high = interval
    return f"{percent(value)} % (95 % CI {percent(low)} to {percent(high)})"


def interval_words(interval: Sequence[int] | None) -> str:
    """Write the interval of a place: `` (95 % CI 8 to 9)``, with a blank before it, or nothing."""
    return f" (95 % CI {interval[0]} to {interval[1]})" if interval else ""


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


def enough_words(
    value: float, interval: Sequence[float] | None, questions: int | None
) -> str:
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


def groups_line(trace: Mapping[str, Any]) -> str | None:
    """Say the accuracy over all questions and over groups.

    Args:
        trace: The content of ``trace.json``.

    Returns:
        A sentence; None where the questions are not of several groups.
    """
    groups = trace.get("accuracy_by_group")
    if not groups:
        return None
    return (
        f"accuracy: {percent(trace['accuracy']['mean'][-1])} % of all questions (micro), "
        f"{percent(trace['macro_accuracy'])} % mean of {len(groups)} groups (macro)"
    )


def unequal_options_line(trace: Mapping[str, Any]) -> str | None:
    """Say Option Frequency where questions have different numbers of options.

    Args:
        trace: The content of ``trace.json``.

    Returns:
        A sentence; None where all questions have the same number of options.
    """
    present = trace.get("where_present")
    if not present or len(set(present["questions"])) == 1:
        return None
    parts = [
        f"{label} {percent(decided, 0)} ({percent(gold, 0)}) of {count}"
        for label, decided, gold, count in zip(
            trace["option_labels"], present["option_frequency"][-1], present["gold_frequency"],
            present["questions"], strict=True,
        )
    ]  # fmt: skip
    return "decided % (gold %) at the output, of the questions with the option: " + ", ".join(parts)


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


def removed_line(steps: Sequence[Mapping[str, Any]], result: Mapping[str, Any]) -> str:
    """Say how many blocks the chosen step removed, and of which phase.

    Args:
        steps: The lines of `steps.jsonl`.
        result: The result of a finished prune run.

    Returns:
        One sentence.
    """
    removed = result["removed"]
    total = len(removed) + len(result["kept"])
    if not removed:
        return f"No block of {total} was removed."
    phases = [step["phase"] for step in steps if step["removed"] in removed]
    parts = [
        f"{phases.count(phase)} {name}" for phase, name in PHASE_NAMES.items() if phase in phases
    ]
    of_phases = f" ({', '.join(parts)})" if parts else ""
    order = ", ".join(str(block) for block in removed)
    noun = "block" if len(removed) == 1 else "blocks"
    was = "was" if len(removed) == 1 else "were"
    return f"{len(removed)} of {total} blocks {was} removed{of_phases}: {noun} {order}."


def accuracy_line(result: Mapping[str, Any], chance: float | None, questions: int | None) -> str:
    """Compare the pruned model with the full one.

    Args:
        result: The result of a finished prune run.
        chance: Accuracy of guessing, where it is known.
        questions: Number of evaluation questions, where it is known.

    Returns:
        One sentence.
    """
    full, pruned = result["full"], result["pruned"]
    where = f" on {plural(questions, 'evaluation question')}" if questions else ""
    guess = "" if chance is None else f"; chance is {percent(chance)} %"
    return (
        f"Accuracy{where}: full model {percent_with_interval(full['accuracy'], full['ci'])}, "
        f"pruned model {percent_with_interval(pruned['accuracy'], pruned['ci'])}{guess}."
    )


def racing_line(racing: Mapping[str, Any]) -> str:
    """Say what racing (that part of a result) promises of each step, and what it saved."""
    run, saved = racing["block_passes"], racing["block_passes_saved"]
    cost = f"{saved} of {run + saved} block passes saved"
    if saved < 0:
        cost = f"{-saved} more than the {run + saved} block passes of an exact search"
    digits = ""
    if racing.get("products"):
        digits = (
            f" Products in {racing['products']} changed the objective by "
            f"{racing['drift']:.2g} at most."
        )
    return (
        f"Racing: a step's choice is within {racing['tolerance']:g} of the best objective with "
        f"{100 * racing['confidence']:g} % confidence; {cost}.{digits}"
    )
