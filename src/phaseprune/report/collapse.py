"""What is left of the accuracy above chance, and where it falls, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from phaseprune.decision.collapse import COLLAPSED_BELOW
from phaseprune.decoder.items import item_in_words
from phaseprune.report.words import (
    PHASE_NAMES,
    ends_with_intervals,
    enough_words,
    interval_words,
    percent,
    percent_with_interval,
    plural,
    these_questions,
)

#: Kind of a collapse -> how a step is marked; texts have no kind.
LOST = {"knowledge": "knowledge lost", "calibration": "calibration lost"}
#: Kind of a fall -> how its steps are marked.
FALL_MARKS = {
    "cliff": "cliff", "several cliffs": "cliff", "slope": "slope", "unclear": "fall", None: "fall",
}  # fmt: skip


def fitted_fall(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The fall that was fitted to retained over the steps of a run.

    Args:
        result: The result of a prune run, of this version or an older one.

    Returns:
        As `decision.collapse.Fall.to_dict`; the fit of an older version has no ``kind`` and no
        ``span``. None where there is none.
    """
    cliff = result.get("cliff")
    if cliff and "found" in cliff:
        return cliff
    # An older version kept the largest one-step loss there, and the fit elsewhere.
    return (result.get("dynamics") or {}).get("cliff_fit")


def largest_loss(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The step of a run with the largest one-step loss; also of an older version's result."""
    cliff = result.get("cliff")
    return result.get("largest_loss") or (cliff if cliff and "loss" in cliff else None)


def fall_steps(fit: Mapping[str, Any]) -> list[int]:
    """The places at which retained falls: that of a cliff, all that a slope goes over."""
    if not fit["found"]:
        return []
    span, kind = fit.get("span"), fit.get("kind")
    if kind == "several cliffs":
        return list(span)
    if kind in ("slope", "unclear"):
        return list(range(span[0] + 1, span[1] + 1))
    return [fit["step"]]


def fall_range(fit: Mapping[str, Any]) -> tuple[int, int]:
    """Between which places retained falls, as far as the intervals say."""
    span, kind = fit.get("span_ci"), fit.get("kind")
    if kind in ("slope", "unclear"):
        return span[0][0] + 1, span[1][1]
    if kind == "several cliffs":
        return span[0][0], span[1][1]
    return tuple(fit["ci"])


def collapse_line(
    result: Mapping[str, Any], steps: Sequence[Mapping[str, Any]] = ()
) -> str:
    """Say what is retained, whether the pruned model collapsed, how, and whether a later one did.

    Args:
        result: The result of a finished prune run.
        steps: The lines of `steps.jsonl`, for the kind of a later collapse.

    Returns:
        One or two sentences.
    """
    if result["retained"] is None:
        return "Retained is not defined: the full model is not better than chance."
    retained = percent_with_interval(result["retained"], result["retained_ci"])
    debiased = _debiased_words(result)
    if debiased:
        retained += f"; without the label prior {debiased}"
    if result["retained_ci"] is None:
        return (
            f"Retained of the accuracy above chance: {retained}, without an interval, "
            "so that a collapse cannot be told."
        )
    text = f"Retained of the accuracy above chance: {retained}. The pruned model "
    questions = _questions(steps)
    at = result["collapsed_at_step"]
    if result["collapsed"]:
        text += "has collapsed" + collapse_kind_words(
            result.get("collapsed_how"), result, questions, told=True
        )
        return text + ("." if at is None else f"; the collapse comes at step {at}.")
    if at is None:
        return f"{text}has not collapsed, nor does any step of the search."
    step = next((step for step in steps if step["step"] == at), {})
    how = collapse_kind_words(result.get("collapse"), step, questions)
    return f"{text}has not collapsed; the search goes on and collapses at step {at}{how}."


def collapse_kind_words(
    kind: str | None, figures: Mapping[str, Any], questions: int | None, told: bool = False
) -> str:
    """Name the kind of a collapse, with what is retained without the label prior.

    Args:
        kind: As `decision.collapse.collapse_kind`; None of texts.
        figures: With ``retained_debiased`` and its interval.
        questions: How many these are of.
        told: Whether these figures stand before already.

    Returns:
        The words with what sets them off before them; nothing of texts.
    """
    if kind is None:
        return ""
    debiased = "" if told else _debiased_words(figures)
    left = f": without the label prior {debiased} is retained" if debiased else ""
    if kind != "unclear":
        return f", a collapse of {kind}{left}"
    value, ci = figures.get("retained_debiased"), figures.get("retained_debiased_ci")
    enough = ""
    if value is not None and ci:
        beyond = [bound - COLLAPSED_BELOW for bound in ci]
        enough = enough_words(value - COLLAPSED_BELOW, beyond, questions)
    return f", of calibration or of knowledge: these questions cannot tell{left}{enough}"


def _debiased_words(figures: Mapping[str, Any]) -> str:
    value = figures.get("retained_debiased")
    if value is None:
        return ""
    return percent_with_interval(value, figures["retained_debiased_ci"])


def _questions(steps: Sequence[Mapping[str, Any]]) -> int | None:
    return len(steps[0]["evaluation"].get("correct", "")) or None if steps else None


def fall_lines(
    result: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Say where retained falls over the steps of a run, and whether that is a cliff.

    Args:
        result: The result of a finished prune run.
        steps: The lines of `steps.jsonl`.

    Returns:
        A sentence, of letters another one where it is otherwise without the label prior; none where
        retained is not defined or an older version fitted nothing.
    """
    fit, questions = fitted_fall(result), _questions(steps)
    if not fit:
        return []
    lines = [fall_sentence(fit, "Retained", _step, questions)]
    other = fit.get("debiased")
    if other and any(other[part] != fit[part] for part in ("found", "kind", "step")):
        subject = "Without the label prior, retained"
        lines.append(fall_sentence(other, subject, _step, questions))
    return lines


def _step(number: int) -> str:
    return f"step {number}"


def removed_blocks(number: int) -> str:
    """A place of a curve over numbers of removed blocks."""
    return plural(number, "removed block")


def fall_sentence(
    fit: Mapping[str, Any],
    subject: str,
    place: Callable[[int], str],
    questions: int | None = None,
) -> str:
    """Say where something retained falls, no more than the fit allows.

    Args:
        fit: As `decision.collapse.Fall.to_dict`, or with ``removed_blocks`` in place of ``step``.
        subject: What falls, at the beginning of a sentence.
        place: A step, or a number of removed blocks, in words.
        questions: That it is of, where they are known.

    Returns:
        One sentence.
    """
    if not fit["found"]:
        p_value = fit.get("p_value")
        how = "" if p_value is None else f" (p = {p_value:.2g})"
        return f"{subject} has no significant fall{how}."
    at, kind = fit.get("step", fit.get("removed_blocks")), fit.get("kind")
    where = "it" if kind in ("cliff", None) else place(at)
    levels = (
        f"{percent(fit['before'])} % on average before {where}, {percent(fit['after'])} % from "
        "there on"
    )
    at = f"{place(at)}{interval_words(fit['ci'])}{_removal(fit)}"
    if kind == "cliff":
        return f"{subject} falls off a cliff at {at}: {levels}."
    if kind is None:
        return (
            f"{subject} falls at {at}: {levels}. Whether that is a cliff or a slope an older "
            "version did not test."
        )
    first, last = ends_with_intervals(fit["span"], fit["span_ci"], place)
    if kind == "several cliffs":
        return f"{subject} falls off two cliffs, at {first} and at {last}: {levels}."
    if kind == "slope":
        return f"{subject} falls on a slope, not off a cliff, from {first} to {last}: {levels}."
    return (
        f"{subject} falls between {first} and {last}: {levels}; {these_questions(questions)} "
        "cannot tell a cliff from a slope."
    )


def _removal(fit: Mapping[str, Any]) -> str:
    """What was removed at a cliff, where that is known."""
    if fit.get("removed") is None:
        return ""
    phase = f" ({PHASE_NAMES[fit['phase']]})" if fit["phase"] else ""
    return f", the removal of {item_in_words(fit['removed'])}{phase}"


def step_marks(step: Mapping[str, Any], result: Mapping[str, Any] | None) -> list[str]:
    """Say what is special about a step.

    Args:
        step: A line of `steps.jsonl`.
        result: The result of a finished run, or None.

    Returns:
        Any of ``chosen``, a mark of `FALL_MARKS`, and of a collapse, by its kind.
    """
    fit = fitted_fall(result) if result else None
    fall = FALL_MARKS[fit.get("kind")] if fit else ""
    marks = {
        "chosen": result is not None and step["step"] == result["chosen_step"],
        fall: fit is not None and step["step"] in fall_steps(fit),
        LOST.get(step.get("collapse"), "collapsed"): step["collapsed"],
    }
    return [name for name, holds in marks.items() if holds]
