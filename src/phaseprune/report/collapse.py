"""What pruning does to accuracy and decisions, in words.

What is left of the accuracy above chance, where it falls and how it collapses; and how the
transition moves from step to step until it is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from phaseprune.decision.collapse import COLLAPSED_BELOW
from phaseprune.decision.dynamics import GONE_BELOW
from phaseprune.decoder.items import item_in_words
from phaseprune.report.words import (
    PHASE_NAMES,
    ends_with_intervals,
    enough_words,
    interval_words,
    p_in_words,
    percent,
    percent_with_interval,
    plural,
    these_questions,
)

#: Kind of a collapse -> how a step is marked; texts have no kind.
LOST = {"knowledge": "knowledge lost", "calibration": "calibration lost"}
#: Kind of a fall -> how its steps are marked.
FALL_MARKS = {
    "cliff": "cliff",
    "several cliffs": "cliff",
    "slope": "slope",
    "unclear": "fall",
    None: "fall",
}


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


def collapse_line(result: Mapping[str, Any], steps: Sequence[Mapping[str, Any]] = ()) -> str:
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
    questions = evaluation_questions(steps)
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


def evaluation_questions(steps: Sequence[Mapping[str, Any]]) -> int | None:
    """How many evaluation questions the steps of a run are of, where that is known."""
    return len(steps[0]["evaluation"].get("correct", "")) or None if steps else None


def fall_lines(result: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say where retained falls over the steps of a run, and whether that is a cliff.

    Args:
        result: The result of a finished prune run.
        steps: The lines of `steps.jsonl`.

    Returns:
        A sentence, of letters another one where it is otherwise without the label prior; none where
        retained is not defined or an older version fitted nothing.
    """
    fit, questions = fitted_fall(result), evaluation_questions(steps)
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


def dynamics_lines(
    result: Mapping[str, Any],
    labels: Sequence[str] | None = None,
    questions: int | None = None,
) -> list[str]:
    """Say how the transition moves and whether it goes, and what a collapsed model picks.

    Args:
        result: The result of a finished prune run.
        labels: Of the options, where they are known.
        questions: Evaluation questions, where that is known.

    Returns:
        Sentences; none of a run that an older version made without them.
    """
    dynamics = result.get("dynamics")
    if not dynamics:
        return []
    frequency = dynamics["collapsed_frequency"]
    return [
        transition_line(dynamics, questions),
        *([_frequency_line(frequency, labels)] if frequency else []),
    ]


def paired_line(result: Mapping[str, Any]) -> str | None:
    """Compare the full and the pruned model question by question.

    Args:
        result: The result of a prune run.

    Returns:
        One sentence; None of a run that an older version made.
    """
    against = result.get("against_full")
    if not against:
        return None
    return (
        f"Question by question: {plural(against['only_full'], 'question')} right in the full model "
        f"alone, {against['only_pruned']} in the pruned one alone (exact McNemar test, "
        f"{p_in_words(against['p_value'])})."
    )


def transition_line(dynamics: Mapping[str, Any], questions: int | None = None) -> str:
    """Say at which readout each pruned model decides, and where the transition is gone.

    Args:
        dynamics: The `dynamics` of a result.
        questions: Evaluation questions, where that is known.

    Returns:
        One sentence. Gone is said on evidence alone; what is neither found nor gone cannot be told.
        A run of an older version only says where none is found.
    """
    transitions = dynamics["transitions"]
    found = [one for one in transitions if one["found"]]
    if not found:
        return (
            "No transition is found in any model of the search (corrected for the number of steps)."
        )
    first, last = found[0], found[-1]
    where = "in the full model" if first["step"] == 0 else f"at step {first['step']}"
    text = f"The transition is at readout {first['readout']} {where}"
    readouts = [one["readout"] for one in found]
    if len(set(readouts)) > 1:
        text += f", lies between {min(readouts)} and {max(readouts)} over the steps"
    if last["step"] != first["step"]:
        text += f", and at {last['readout']} at step {last['step']}"
    rest = [
        part for part in (_gone_words(transitions), _unclear_words(transitions, questions)) if part
    ]
    if "state" not in transitions[0]:
        none = [one["step"] for one in transitions if not one["found"]]
        rest = [f"none is found at {_steps(none)}"] if none else []
    if not rest:
        return f"{text}; it is found at every step."
    return f"{text}; {'; '.join(rest)}."


def _gone_words(transitions: Sequence[Mapping[str, Any]]) -> str:
    gone = [one["step"] for one in transitions if one.get("state") == "gone"]
    if not gone:
        return ""
    return (
        f"it is gone at {_steps(gone)} (DM rises by less than {percent(GONE_BELOW, 0)} % of what "
        "it does in the full model)"
    )


def _unclear_words(transitions: Sequence[Mapping[str, Any]], questions: int | None) -> str:
    unclear = [one for one in transitions if one.get("state") == "unclear"]
    if not unclear:
        return ""
    # What would settle the first one: its rise against half of the full model's lower bound.
    rise, turn = unclear[0]["rise"], GONE_BELOW * transitions[0]["rise"]["ci"][0]
    bounds = [bound - turn for bound in rise["ci"]]
    enough = enough_words(rise["value"] - turn, bounds, questions)
    which = f" at step {unclear[0]['step']}" if enough and len(unclear) > 1 else ""
    steps = _steps([one["step"] for one in unclear])
    return f"whether there is one at {steps} cannot be told" + (
        f" ({enough[2:]}{which})" if enough else ""
    )


def _steps(numbers: Sequence[int]) -> str:
    """Name steps: ``step 4``, ``steps 2, 4 and 7``, ``steps 9 to 13``."""
    if len(numbers) == 1:
        return f"step {numbers[0]}"
    if len(numbers) > 2 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"steps {numbers[0]} to {numbers[-1]}"
    return f"steps {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def _frequency_line(frequency: Mapping[str, Any], labels: Sequence[str] | None) -> str:
    option = frequency["top_option"]
    name = labels[option] if labels and option < len(labels) else f"number {option}"
    verdict = "significantly" if frequency["significant"] else "not significantly"
    return (
        f"The collapsed model of step {frequency['step']} decides for option {name} in "
        f"{percent(frequency['top_share'])} % of the questions, and that option is right in "
        f"{percent(frequency['gold_share'])} %: its Option Frequency differs {verdict} from the "
        f"gold (distance {frequency['distance']:.2f})."
    )
