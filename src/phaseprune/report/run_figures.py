"""The figures of a run of ``trace`` or ``prune`` for its page, each with its caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phaseprune.report import figures
from phaseprune.report.frequency_words import frequency_caption
from phaseprune.report.item_words import nouns_of
from phaseprune.report.svg import inline_svg


def run_figures(
    trace: Mapping[str, Any] | None,
    steps: Sequence[Mapping[str, Any]],
    result: Mapping[str, Any] | None,
) -> list[dict[str, Any]]:
    """Draw what the run allows.

    Args:
        trace: The content of `trace.json`, or None.
        steps: The lines of `steps.jsonl`, maybe none.
        result: The result of a finished prune run, or None.

    Returns:
        ``name``, ``svg`` (markup) and ``caption`` of each figure.
    """
    drawn = []
    halves = nouns_of(steps, result) != "blocks"

    def add(name: str, figure: Any, caption: str) -> None:
        svg = inline_svg(figure, name, caption)
        drawn.append({"name": name, "svg": svg, "caption": caption})

    if len(steps) > 1:
        add(
            "pruning",
            figures.pruning_figure(steps, result, trace["chance"] if trace else None),
            f"Each point is one more {'half of a block' if halves else 'block'} removed, named by "
            f"its index{' (a: attention, m: MLP)' if halves else ''}; squares are Silent, circles "
            "Decisive blocks. The grey band is where accuracy falls, its pale part the 95 % "
            f"interval of that.{_both(steps[0].get('retained_debiased_ci'))} Look for how long "
            "accuracy holds, and what makes it fall.",
        )
    if any(step.get("guard") for step in steps):
        add(
            "guards",
            figures.guards_figure(steps),
            "What the questions do not ask for. Look for steps at which accuracy still holds while "
            "the loss on plain text has risen, or continuations begin to repeat themselves.",
        )
    if trace:
        both = _both(trace.get("debiased"))
        add(
            "margin",
            figures.decision_margin_figure(trace),
            f"How sure the full model is of the right option after each block.{both} "
            f"{_phases_caption(trace['transition'])}",
        )
        add(
            "frequency",
            figures.option_frequency_figure(trace),
            "Which option each readout picks, beside the share of questions for which it is right "
            "(gold). One option that fills a bar is a readout that picks it whatever the question."
            + frequency_caption(trace),
        )
        add(
            "accuracy",
            figures.accuracy_by_readout_figure(trace),
            f"The share of questions that each readout decides rightly, against guessing.{both}",
        )
        if trace.get("decision_depth"):
            add(
                "depth",
                figures.decision_depth_figure(trace),
                "At which readout the decision of each question becomes right for good. The last "
                "bar is of the questions whose decision at the output is wrong.",
            )
        for name, of in (("by_group", "group"), ("by_option_count", "number of options")):
            if trace.get(name):
                add(
                    name.replace("_", "-"),
                    figures.group_margins_figure(trace[name], of),
                    f"The Decision Margin of each {of}, with the questions of each; green readouts "
                    "hold the right option. A mark stands where the transition is, if it is "
                    "significant after the correction for the number of rows.",
                )
    if len(steps) > 1:
        add(
            "heatmap",
            figures.margin_heatmap_figure(steps, trace),
            "A row for each step of the search, the full model on top: green readouts hold the "
            "right option, purple ones another, struck grey cells are removed blocks. Look "
            "for the rows where the green on the right is gone.",
        )
    if result and result.get("dynamics"):
        add(
            "dynamics",
            figures.dynamics_figure(result),
            "Where each pruned model decides, in readouts of the full model; corrected for the "
            "number of steps. Below: where the transition is gone (x), and where these questions "
            "cannot tell (?). Look for whether it is gone where the model collapses.",
        )
    return drawn


def _both(debiased: Any) -> str:
    """What the green line is, where there is one."""
    return " Green: with the label prior taken off." if debiased else ""


def _phases_caption(transition: Mapping[str, Any]) -> str:
    if not transition["found"]:
        return "No two phases can be told apart here."
    if transition.get("shape") in (None, "step"):
        return (
            "Before the transition the readouts show no decision, after it they do; the dashed "
            "levels are the fitted step."
        )
    return "It does not rise in one clear step; the dashed levels are the best split into two."
