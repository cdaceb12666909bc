"""Numbers and findings in words, the same in the terminal and on the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

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


def phases_line(trace: Mapping[str, Any]) -> str:
    """Say in one sentence where the model decides.

    Args:
        trace: The content of `trace.json`.

    Returns:
        The transition with its interval and both phases, or why there is no transition.
    """
    transition = trace["transition"]
    if not transition["found"]:
        reason = (transition["reason"] or "the step is not significant").rstrip(". ")
        return f"No transition was found: {reason}."
    interval = ""
    if transition["ci"]:
        interval = f" (95 % CI {transition['ci'][0]} to {transition['ci'][1]})"
    phases = [
        f"{name} {blocks_in_words(blocks)}" if blocks else f"no {name} block"
        for name, blocks in (
            ("Silent", transition["silent_blocks"]),
            ("Decisive", transition["decisive_blocks"]),
        )
    ]
    return (
        f"The model decides at readout {transition['readout']} of {trace['blocks']}{interval}: "
        f"{', '.join(phases)}."
        + (f" Found on {n} questions of the task." if (n := transition.get("questions")) else "")
    )


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


def collapse_line(result: Mapping[str, Any]) -> str:
    """Say what is retained, whether the pruned model collapsed, and whether a later one did.

    Args:
        result: The result of a finished prune run.

    Returns:
        One or two sentences.
    """
    if result["retained"] is None:
        return "Retained is not defined: the full model is not better than chance."
    retained = percent_with_interval(result["retained"], result["retained_ci"])
    if result["retained_ci"] is None:
        return (
            f"Retained of the accuracy above chance: {retained}, without an interval, "
            "so that a collapse cannot be told."
        )
    verdict = "has collapsed" if result["collapsed"] else "has not collapsed"
    text = f"Retained of the accuracy above chance: {retained}. The pruned model {verdict}"
    at = result["collapsed_at_step"]
    if at is None:
        return text + ("." if result["collapsed"] else ", nor does any step of the search.")
    if result["collapsed"]:
        return f"{text}; the collapse comes at step {at}."
    return f"{text}; the search goes on and collapses at step {at}."


def cliff_line(result: Mapping[str, Any]) -> str:
    """Say where the cliff is: the step that loses most of what is retained.

    Args:
        result: The result of a finished prune run.

    Returns:
        One sentence.
    """
    cliff = result["cliff"]
    if not cliff:
        if result["retained"] is None:
            return "No cliff can be told, as retained is not defined."
        return "No cliff: no step loses any of what is retained."
    phase = f" ({PHASE_NAMES[cliff['phase']]})" if cliff["phase"] else ""
    interval = ""
    if cliff.get("loss_ci"):
        low, high = cliff["loss_ci"]
        interval = f" (95 % CI {percent(low)} to {percent(high)})"
    text = (
        f"The cliff is step {cliff['step']}, the removal of block {cliff['removed']}{phase}: "
        f"it loses {percent(cliff['loss'])} points of retained{interval}"
    )
    return text + ("." if cliff["significant"] else ", which is not significant.")


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
