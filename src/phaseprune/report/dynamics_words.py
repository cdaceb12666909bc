"""What pruning does to the decision, step by step, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phaseprune.decision.dynamics import GONE_BELOW
from phaseprune.report.words import enough_words, percent, plural


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
    p_value = against["p_value"]
    return (
        f"Question by question: {plural(against['only_full'], 'question')} right in the full model "
        f"alone, {against['only_pruned']} in the pruned one alone (exact McNemar test, p "
        + (f"= {p_value:.2g}" if p_value >= 0.001 else "< 0.001")
        + ")."
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
        part
        for part in (_gone_words(transitions), _unclear_words(transitions, questions))
        if part
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

