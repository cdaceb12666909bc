"""Where a model decides, in words: a step, a gradual rise, or what these questions cannot tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phaseprune.report.words import (
    PHASE_NAMES,
    blocks_in_words,
    ends_with_intervals,
    interval_words,
    percent,
    signed,
    these_questions,
)

#: What the label prior is, where it is named for the first time.
LABEL_PRIOR = "the label prior (how much a letter is preferred whatever the question says)"


def phases_line(trace: Mapping[str, Any]) -> str:
    """Say where the model decides, no more than the shape of the rise allows.

    Args:
        trace: The content of `trace.json`.

    Returns:
        The transition with its interval and both phases, or why there is no transition. Of letters
        it is that without the label prior; what the model's own answers show stands beside it where
        it is something else.
    """
    transition, raw = trace["transition"], trace.get("raw_transition")
    differ = raw is not None and _differ(raw, transition)
    if not transition["found"]:
        if not differ:
            return f"No transition was found: {_reason(transition)}."
        return (
            f"No transition was found without {LABEL_PRIOR}: {_reason(transition)}; as the model "
            f"answers, {_clause(raw, trace)}, which the label prior may have made."
        )
    text = _clause(transition, trace)
    text = f"without {LABEL_PRIOR}, {text}" if differ else text
    if transition.get("shape") in ("gradual", "several", "unclear"):
        at = f"readout {transition['readout']}{interval_words(transition['ci'])}"
        text += f". Split into two levels, at {at}"
    text += f": {_phases(transition)}"
    if differ:
        answers = _clause(raw, trace) if raw["found"] else f"none is found ({_reason(raw)})"
        # The second clause speaks of the same model again.
        text += f"; as it answers, {answers.replace('the model decides', 'it decides')}"
    text = f"{text[0].upper()}{text[1:]}."
    return text + _low_level(transition, trace) + _found_on(transition)


def _differ(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two transitions say different things; ``unclear`` contradicts no other shape."""
    if any(one[part] != other[part] for part in ("found", "readout")):
        return True
    shapes = {one.get("shape"), other.get("shape")} - {"unclear"}
    return len(shapes) > 1


def _reason(transition: Mapping[str, Any]) -> str:
    return (transition["reason"] or "the step is not significant").rstrip(". ")


def _clause(transition: Mapping[str, Any], trace: Mapping[str, Any]) -> str:
    """Where the Decision Margin rises, by its shape; without the phases."""
    shape, of = transition.get("shape"), f"of {trace['blocks']}"
    at = interval_words(transition["ci"])
    if shape == "step":
        return f"the model decides at readout {transition['readout']} {of}{at}"
    if shape is None:
        return (
            f"the Decision Margin rises at readout {transition['readout']} {of}{at}, by a step or "
            "gradually (an older version did not look)"
        )
    first, last = ends_with_intervals(transition["rise"], transition["rise_ci"])
    if shape == "gradual":
        return f"the Decision Margin rises gradually from readout {first} to {last} {of}"
    if shape == "several":
        return f"the Decision Margin rises in two steps, at readouts {first} and {last} {of}"
    questions = transition.get("questions") or trace.get("questions")
    # How many would is not told: the ends are whole readouts, and their intervals do not shrink
    # with the root of the number of questions.
    return (
        f"the Decision Margin rises between readouts {first} and {last} {of}, where "
        f"{these_questions(questions)} cannot tell a step from a gradual rise"
    )


def _phases(transition: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{PHASE_NAMES[phase]} {blocks_in_words(blocks)}"
        if (blocks := transition[f"{phase}_blocks"])
        else f"no {PHASE_NAMES[phase]} block"
        for phase in ("silent", "decisive")
    )


def _low_level(transition: Mapping[str, Any], trace: Mapping[str, Any]) -> str:
    """That the upper level is still below 0, and what that means for the decisions."""
    level = transition["decisive_level"]
    if level is None or level >= 0:
        return ""
    accuracy = (trace.get("debiased") or trace)["accuracy"]["mean"][transition["readout"] :]
    right = sum(accuracy) / len(accuracy)
    text = f" Behind it the Decision Margin is still below 0 ({signed(level)} on average)"
    if right < 0.5:
        text += f": most questions are not decided rightly there ({percent(right, 0)} % are)"
    return f"{text}."


def _found_on(transition: Mapping[str, Any]) -> str:
    questions = transition.get("questions")
    return f" Found on {questions} questions of the task." if questions else ""


def transition_tile(trace: Mapping[str, Any]) -> tuple[str, str, str]:
    """Name, number and what stands below it, for the head of a page.

    Args:
        trace: The content of `trace.json`.
    """
    transition, name = trace["transition"], "Transition"
    if not transition["found"]:
        return name, "none", "not found"
    shape, of = transition.get("shape"), f"of {trace['blocks']}"
    if shape in (None, "step"):
        ci = transition["ci"]
        return name, f"readout {transition['readout']}", of + (
            f", CI {ci[0]} to {ci[1]}" if ci else ""
        )
    return name, ends_in_words(transition["rise"], shape), f"{of}, {SHAPES[shape]}"


#: Shape -> what it is called where there is little room.
SHAPES = {
    "step": "a step", "gradual": "a gradual rise", "several": "two steps",
    "unclear": "a step or gradual",
}  # fmt: skip


def ends_in_words(ends: Sequence[int], shape: str) -> str:
    """The readouts of a rise: ``6 to 10``, of two steps ``6 and 10``."""
    return f"{ends[0]} {'and' if shape == 'several' else 'to'} {ends[1]}"
