"""What pruning does to the decision, step by step, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phaseprune.decision.dynamics import is_slope
from phaseprune.report.words import percent, plural


def dynamics_lines(result: Mapping[str, Any], labels: Sequence[str] | None = None) -> list[str]:
    """Say how the transition moves and vanishes, what a collapsed model picks, and the cliff.

    Args:
        result: The result of a finished prune run.
        labels: Of the options, where they are known.

    Returns:
        Sentences; none of a run that an older version made.
    """
    dynamics = result.get("dynamics")
    if not dynamics:
        return []
    lines = [transition_line(dynamics)]
    frequency = dynamics["collapsed_frequency"]
    if frequency:
        lines.append(_frequency_line(frequency, labels))
    cliff = dynamics["cliff_fit"]
    if cliff:
        lines.append(_cliff_line(cliff))
    return lines


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
    p_value = against["p_value"]
    return (
        f"Question by question: {plural(against['only_full'], 'question')} right in the full model "
        f"alone, {against['only_pruned']} in the pruned one alone (exact McNemar test, p "
        + (f"= {p_value:.2g}" if p_value >= 0.001 else "< 0.001")
        + ")."
    )


def transition_line(dynamics: Mapping[str, Any]) -> str:
    """Say at which readout each pruned model decides, and when none does any more.

    Args:
        dynamics: The `dynamics` of a result.

    Returns:
        One sentence.
    """
    found = [one for one in dynamics["transitions"] if one["found"]]
    if not found:
        return "No model of the search has a transition (corrected for the number of steps)."
    first, last = found[0], found[-1]
    where = "in the full model" if first["step"] == 0 else f"at step {first['step']}"
    text = f"The transition is at readout {first['readout']} {where}"
    readouts = [one["readout"] for one in found]
    if len(set(readouts)) > 1:
        text += f", lies between {min(readouts)} and {max(readouts)} over the steps"
    if last["step"] != first["step"]:
        text += f", and at {last['readout']} at step {last['step']}"
    vanishes = dynamics["vanishes_at_step"]
    if vanishes is None:
        return f"{text}; it does not vanish."
    return f"{text}; from step {vanishes} on no model has one."


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


def _cliff_line(cliff: Mapping[str, Any]) -> str:
    if not cliff["found"]:
        return "A fit of two levels to retained finds no significant fall."
    low, high = cliff["ci"]
    return (
        f"Fitted cliff: retained falls from {percent(cliff['before'])} % to "
        f"{percent(cliff['after'])} % at step {cliff['step']} (95 % CI {low} to {high}), "
        f"{fit_words(cliff)}."
    )


def fit_words(fit: Mapping[str, Any]) -> str:
    """Say how well two levels fit, and whether it is a slope rather than a cliff.

    Args:
        fit: Of `fit_cliff`; one of an older version does not know of a line.
    """
    words = f"R² {fit['r2']:.2f}"
    if not is_slope(fit):
        return words
    return f"{words}; of a straight line {fit['line_r2']:.2f}: a slope rather than a cliff"
