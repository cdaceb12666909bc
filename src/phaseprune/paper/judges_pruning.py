"""The verdicts on what the paper claims of Iterative Pruning; `judges` has those on all else."""

from __future__ import annotations

from phaseprune.paper.judges import Finding
from phaseprune.paper.results import Results
from phaseprune.report.collapse_words import fall_lines, fall_range, fitted_fall
from phaseprune.report.dynamics_words import transition_line
from phaseprune.report.words import PHASE_NAMES, blocks_in_words, percent

#: A plateau keeps this much of retained before the cliff, which takes at least that much of it.
PLATEAU, FALL = 0.7, 0.4
#: A slope has a plateau before it where it begins behind so many steps at least.
LEVEL_STEPS = 2
#: Accuracy falls "at once" where the interval of the step at which it falls is at most so wide.
ABRUPT = 2


def plateau(results: Results) -> Finding:
    """Whether retained is level, and then falls at once."""
    run = results["prune"]
    fit, steps = fitted_fall(run["result"]), run["steps"]
    lines = fall_lines(run["result"], steps)
    if not fit:
        return Finding("undecided", "Retained is not defined, so that no fall can be told.")
    text = " ".join(lines)
    kind = fit.get("kind")
    if not fit["found"] or kind in (None, "unclear"):
        return Finding("undecided", text)
    if kind == "several cliffs":
        return Finding("partly", f"{text} That is not one cliff.")
    if kind == "slope":
        level = fit["span_ci"][0][0]
        if level < LEVEL_STEPS:
            return Finding("disagrees", f"{text} It is no plateau, and no cliff.")
        return Finding("partly", f"{text} It is level for {level} steps, but falls over several.")
    (low, high), before, after = fit["ci"], fit["before"], fit["after"]
    agrees = before >= PLATEAU and before - after >= FALL and high - low <= ABRUPT
    return Finding(
        "agrees" if agrees else "partly",
        f"{text} (A cliff after a plateau keeps {percent(PLATEAU, 0)} % before it, takes "
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
        + (f"{blocks_in_words(before)} of the Silent Phase went." if before else
           "no block of the Silent Phase went.")
    )  # fmt: skip
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
