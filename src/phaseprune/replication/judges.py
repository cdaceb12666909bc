"""The verdict on each claim of the paper, from the results of a task.

The thresholds are ours, as the paper names none; they stand here and in docs/paper.md. A verdict
follows from an interval or a test wherever there is one: what is not significant is ``undecided``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from scipy import stats

from phaseprune.decision.curve import SIGNIFICANCE
from phaseprune.decision.perturbation import PAPER
from phaseprune.replication.results import Results
from phaseprune.report.collapse import fall_lines, fall_range, fitted_fall, transition_line
from phaseprune.report.heal import levelling_line, trend_line
from phaseprune.report.phasewise import control_line, debiased_lines, difference_line
from phaseprune.report.similarity import shown_model, with_interval
from phaseprune.report.trace import phases_line, with_bounds
from phaseprune.report.words import (
    PHASE_NAMES,
    blocks_in_words,
    enough_words,
    percent,
    percent_with_interval,
)

VERDICTS = ("agrees", "partly", "disagrees", "undecided")
#: A transition is sharp where one block makes at least this share of the rise of DM.
SHARP = 0.5
#: Finding no transition speaks against a sharp one where so many of them would have been found.
POWER = 0.9
#: A plateau keeps this much of retained before the cliff, which takes at least that much of it.
PLATEAU, FALL = 0.7, 0.4
#: A slope has a plateau before it where it begins behind so many steps at least.
LEVEL_STEPS = 2
#: Accuracy falls "at once" where the interval of the step at which it falls is at most so wide.
ABRUPT = 2
#: "Near" a variance of noise: within this factor of it.
NEAR = 2.0
#: Past this share of pruned blocks recovery levels off (paper: 13 of 32 blocks).
LEVELS_OFF = 0.406
#: "Everywhere": at this share of the readouts of all healed depths.
EVERYWHERE = 0.9
#: Hidden states "stay alike" where their CKA at the outputs is at least this.
ALIKE = 0.5


@dataclass(frozen=True)
class Finding:
    """What one task says of a claim: a verdict of ``VERDICTS`` and the numbers."""

    verdict: str
    text: str

    def to_dict(self) -> dict[str, str]:
        """Plain JSON values."""
        return {"verdict": self.verdict, "text": self.text}


def sharp(results: Results) -> Finding:
    """Whether DM rises in a step, and one block makes most of it."""
    trace = results["trace"]
    transition, line = trace["transition"], phases_line(trace)
    if not transition["found"]:
        return _no_transition(trace)
    shape = transition.get("shape")
    if shape is None:
        return Finding("undecided", f"{line} So its shape is not known.")
    if shape == "unclear":
        return Finding("undecided", line)
    if shape == "gradual":
        return Finding("disagrees", f"{line} A gradual rise is no sharp transition.")
    if shape == "several":
        return Finding("partly", f"{line} That is not one sharp transition.")
    value, (low, high) = transition["sharpness"], transition["sharpness_ci"]
    verdict = "agrees" if low >= SHARP else "partly" if high < SHARP else "undecided"
    enough = ""
    if verdict == "undecided":
        questions = transition.get("questions") or trace.get("questions")
        enough = enough_words(value - SHARP, (low - SHARP, high - SHARP), questions)
    return Finding(
        verdict,
        f"{line} One block makes {percent(value, 0)} % of the rise (95 % CI {percent(low, 0)} to "
        f"{percent(high, 0)}; sharp is {percent(SHARP, 0)} % or more{enough}); the step explains "
        f"{percent(transition['r2'], 0)} % of what DM does.",
    )


def _no_transition(trace: Mapping[str, Any]) -> Finding:
    """No transition speaks against a sharp one only where a sharp one would have been found."""
    line, chance = phases_line(trace), trace["chance"]
    accuracy, questions = trace["accuracy"]["mean"][-1], trace.get("questions")
    if not trace["transition"].get("informed") or not questions:
        return Finding("undecided", line)
    # A rise from chance to the output's accuracy at one readout, sought at all of them.
    error = ((accuracy * (1 - accuracy) + chance * (1 - chance)) / questions) ** 0.5
    needed = stats.norm.isf(SIGNIFICANCE / trace["blocks"])
    power = float(stats.norm.sf(needed - (accuracy - chance) / error))
    text = (
        f"{line} Yet the output is right in {percent(accuracy, 0)} %. A sharp rise from chance to "
        f"that would be found in about {percent(power, 0)} of 100 samples of so many questions."
    )
    return Finding("disagrees" if power >= POWER else "undecided", text)


def one_sided(results: Results) -> Finding:
    """Whether Option Frequency is farther from the gold shares before the transition."""
    trace = results["trace"]
    distance = trace.get("option_frequency_distance")
    if not distance:
        return Finding("undecided", "The trace is of an older version, without these distances.")
    phases = distance["phases"]
    if not phases:
        return _no_phases()
    silent, decisive, difference = (phases[n] for n in ("silent", "decisive", "difference"))
    text = (
        "Option Frequency is "
        f"{with_bounds(silent)} from the gold shares in the Silent Phase and "
        f"{with_bounds(decisive)} in the Decisive Phase (0 is equal, total variation); difference "
        f"{with_bounds(difference)}."
    )
    if not difference["significant"]:
        return Finding("undecided", text)
    return Finding("agrees" if difference["mean"] > 0 else "disagrees", text)


def plateau(results: Results) -> Finding:
    """Whether retained is level, and then falls at once."""
    run = results["prune"]
    fit, steps = fitted_fall(run["result"]), run["steps"]
    if not fit:
        return Finding("undecided", "Retained is not defined, so that no fall can be told.")
    # The verdict is on what the model answers; of letters another line is without the label prior.
    line, *more = fall_lines(run["result"], steps)
    verdict, why = _plateau(fit)
    return Finding(verdict, " ".join([line, *([why] if why else []), *more]))


def _plateau(fit: Mapping[str, Any]) -> tuple[str, str]:
    """The verdict on a fitted fall, and what it rests on beyond the fall itself."""
    kind = fit.get("kind")
    if not fit["found"] or kind in (None, "unclear"):
        return "undecided", ""
    if kind == "several cliffs":
        return "partly", "That is not one cliff."
    if kind == "slope":
        level = fit["span_ci"][0][0]
        if level < LEVEL_STEPS:
            return "disagrees", "That is no plateau, and no cliff."
        return "partly", f"That is level for {level} steps, but no fall at once."
    (low, high), before, after = fit["ci"], fit["before"], fit["after"]
    agrees = before >= PLATEAU and before - after >= FALL and high - low <= ABRUPT
    return (
        "agrees" if agrees else "partly",
        f"(A cliff after a plateau keeps {percent(PLATEAU, 0)} % before it, takes "
        f"{percent(FALL, 0)} points, and is known to within {ABRUPT} steps.)",
    )


def silent_hit(results: Results) -> Finding:
    """Whether the blocks that are removed where retained falls are of the Silent Phase."""
    fit, steps = fitted_fall(results["prune"]["result"]), results["prune"]["steps"]
    if not fit or not fit["found"]:
        return Finding("undecided", "Retained has no significant fall.")
    low, high = fall_range(fit)
    gone = steps[low : high + 1]
    within = {step["phase"] for step in gone}
    if None in within:
        return Finding("undecided", "The full model has no transition, so blocks have no phase.")
    before = [s["removed"] for s in steps[1:low] if s["phase"] == "silent"]
    removed = blocks_in_words([step["removed"] for step in gone])
    named = " and ".join(name for phase, name in PHASE_NAMES.items() if phase in within)
    text = (
        f"Retained falls where {removed} {'goes' if len(gone) == 1 else 'go'} "
        f"({'step' if low == high else 'steps'} {low}{f' to {high}' if high > low else ''}): "
        f"{named}; before that "
        + (
            f"{blocks_in_words(before)} of the Silent Phase went."
            if before
            else "no block of the Silent Phase went."
        )
    )
    if len(within) > 1:
        return Finding("undecided", text)
    if within == {"decisive"}:
        return Finding("disagrees", text)
    return Finding("partly" if before else "agrees", text)


def vanishes(results: Results) -> Finding:
    """Whether the transition is gone in the first collapsed model, and not before."""
    run = results["prune"]
    result, steps = run["result"], run["steps"]
    dynamics, collapsed = result["dynamics"], result["collapsed_at_step"]
    text = transition_line(dynamics, len(steps[0]["evaluation"].get("correct", "")) or None)
    if collapsed is None:
        return Finding("undecided", f"No model of the search collapses. {text}")
    states = [one.get("state") for one in dynamics["transitions"]]
    text = f"The first collapsed model is that of step {collapsed}. {text}"
    if states[0] != "found" or states[collapsed] == "unclear":
        return Finding("undecided", text)
    if states[collapsed] == "found":
        return Finding("disagrees", text)
    early = [step for step in range(collapsed) if states[step] == "gone"]
    return Finding("partly" if early and early[0] < collapsed - 1 else "agrees", text)


def phases(results: Results) -> Finding:
    """Whether blocks of the Silent Phase cost more than as many Decisive ones of like depth.

    Judged by the decisions as they are; where these agree and those without the label prior do not,
    the claim is partly there.
    """
    result = results["phasewise"]["result"]
    verdict, debiased = result["verdict"], result["debiased"]
    if verdict == "agrees" and debiased and debiased["verdict"] != "agrees":
        verdict = "partly"
    text = [difference_line(result), control_line(result, result), *debiased_lines(result)]
    return Finding(verdict, " ".join(text))


def features(results: Results) -> Finding:
    """Whether a collapsed model is more alike in its states than in its decisions."""
    model = shown_model(results["similarity"])
    text = (
        f"Without {blocks_in_words(model['removed'])}: "
        f"{percent_with_interval(model['retained'], model['retained_ci'])} of the accuracy above "
        f"chance are retained; at the outputs CKA of hidden states is "
        f"{with_interval(model['cka_output'])}, behind the same blocks "
        f"{with_interval(model['cka_mean'])} on average; decisions have JS similarity "
        f"{with_interval(model['js_output'])}, beyond that of different questions "
        f"{with_interval(model['js_beyond_chance'])}."
    )
    if not model["collapsed"]:
        return Finding("undecided", f"No model of the search collapses. {text}")
    stay = "agrees" if (model["cka_output"]["mean"] or 0) >= ALIKE else "partly"
    verdict = {"states": stay, "decisions": "disagrees", None: "undecided"}
    return Finding(verdict[model["more_alike"]], f"{text} Alike is a CKA of {ALIKE:g} or more.")


def silent_breaks(results: Results) -> Finding:
    """Whether noise near the named variance halves DM at the Silent readouts."""
    phase = results["perturb"]["phases"].get("silent")
    return _noise(phase, _near) if phase else _no_phases()


def _near(phase: Mapping[str, Any]) -> tuple[str, str]:
    halving, at = phase["halving"], PAPER["silent"]["noise"]
    low, high = at / NEAR, at * NEAR
    value, *bounds = halving["value"], halving["ci_low"], halving["ci_high"]
    if value is None:
        return "disagrees", f"Noise at the Silent readouts: {halving['reason']}."
    inside = bounds[0] is not None and bounds[0] <= high and (bounds[1] is None or bounds[1] >= low)
    shown = " to ".join("beyond the levels" if b is None else f"{b:.2g}" for b in bounds)
    return (
        "agrees" if low <= value <= high else ("undecided" if inside else "disagrees"),
        f"Noise at the Silent readouts halves DM at σ² = {value:.2g} (95 % CI {shown}; near is "
        f"{low:g} to {high:g}).",
    )


def decisive_holds(results: Results) -> Finding:
    """Whether half of DM stands under the named noise at the Decisive readouts."""
    phase = results["perturb"]["phases"].get("decisive")
    return _noise(phase, _holds) if phase else _no_phases()


def _holds(phase: Mapping[str, Any]) -> tuple[str, str]:
    share = phase["paper_share"]
    if not share:
        return "undecided", "The noise of the paper was not tried, or DM is not above 0."
    value, low, high = share
    text = (
        f"With noise of {phase['paper_noise']:g} at the Decisive readouts "
        f"{percent_with_interval(value, None if low is None else (low, high))} of DM is left."
    )
    if low is None or low < 0.5 <= high:
        return "undecided", text
    return ("agrees" if low >= 0.5 else "disagrees"), text


def _noise(phase: Mapping[str, Any], judge: Callable) -> Finding:
    if phase["halving"]["value"] is None and "not above 0" in (phase["halving"]["reason"] or ""):
        reason = phase["halving"]["reason"]
        return Finding("undecided", f"{reason[0].upper()}{reason[1:]}.")
    return Finding(*judge(phase))


def _no_phases() -> Finding:
    return Finding("undecided", "Without a transition there are no phases to compare.")


def bounded(results: Results) -> Finding:
    """Whether retained after healing rises with the depth that remains."""
    ladder = results["heal"]
    bounds = ladder["trend"]["ci"]
    text = trend_line(ladder)
    if not bounds or bounds[0] <= 0 <= bounds[1]:
        return Finding("undecided", text)
    return Finding("agrees" if bounds[0] > 0 else "disagrees", text)


def levels_off(results: Results) -> Finding:
    """Whether the knot of the recovery curve is at the named share, flat beyond it."""
    ladder = results["heal"]
    levelling, text = ladder["levelling"], levelling_line(ladder)
    if not levelling["found"]:
        return Finding("undecided", text)
    low, high = (1 - depth / ladder["blocks"] for depth in reversed(levelling["ci"]))
    if not low <= LEVELS_OFF <= high:
        return Finding("disagrees", text)
    return Finding("agrees" if levelling["flat"] == "below" else "partly", text)


def lifts(results: Results) -> Finding:
    """Whether healing raises DM at nearly all readouts."""
    rows = results["heal"]["depths"]
    total = sum(row["readouts"] for row in rows)
    higher = sum(row["readouts_higher"] for row in rows)
    lower = sum(row["readouts_lower"] for row in rows)
    text = (
        f"DM is significantly higher after healing at {higher} of {total} readouts of "
        f"{len(rows)} depths, lower at {lower}."
    )
    if higher >= EVERYWHERE * total:
        return Finding("agrees", text)
    if not higher and not lower:
        return Finding("undecided", text)
    return Finding("partly" if higher > lower else "disagrees", text)
