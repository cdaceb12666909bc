"""Blocks ablated one at a time, beside their removal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phaseprune.report.trace import beside_trace, phases_line
from phaseprune.report.view import PAGE, Column, Figure, Table, View, estimates, phase_cell
from phaseprune.report.words import interval_words, percent, plural, signed

#: Kind -> what stands over its figures, and what is done in words.
HEADINGS = {"mean": "mean", "swap": "swapped", "repeat": "repeated"}
DONE = {
    "mean": "replaced by the mean of its contribution",
    "swap": "swapped with the next one",
    "repeat": "run twice",
}


def ablation_view(result: Mapping[str, Any], trace: Mapping[str, Any] | None = None) -> View:
    """Show an ablation.

    Args:
        result: The content of `ablation.json`.
        trace: The content of `trace.json`, where it is known.

    Returns:
        Its view.
    """
    figure = Figure(
        "ablation",
        "ablation_figure",
        (result,),
        "How sure the output is of the right option when one block is ablated, beside the model "
        "without the block.",
    )
    phases = [phases_line(trace)] if trace else []
    body = [ablation_table(result), *phases, *ablation_sentences(result)]
    return beside_trace(View(body, figures=[figure]), trace)


def ablation_table(result: Mapping[str, Any]) -> Table:
    """Tabulate an ablation: a row a block, beside the model without the block.

    Args:
        result: The content of `ablation.json`.

    Returns:
        The table, a rule between the phases.
    """
    heading, phases = HEADINGS[result["kind"]], result["phases"]
    swap = result["kind"] == "swap"
    return Table(
        f"{result['model']} on {result['task']}: each block {DONE[result['kind']]}",
        [
            Column(
                "Block",
                [f"{block}, {block + 1}" if swap else str(block) for block in result["blocks"]],
            ),
            Column("Phase", [phase_cell(phase) for phase in phases], left=True, only=PAGE),
            Column(f"{heading}\nDM [95 % CI]", estimates(result["decision_margin"])),
            Column(
                "\nAcc. % [CI]",
                estimates(result["accuracy"], 0, percent),
                page=f"{heading} accuracy %",
            ),
            Column("removed\nDM", estimates(result["removal_margin"]), narrow=True),
            Column(
                "\nAcc. %",
                estimates(result["removal_accuracy"], 0, percent),
                narrow=True,
                page="removed accuracy %",
            ),
            Column("difference\nof DM [95 % CI]", estimates(result["difference"])),
        ],
        "difference by question; intervals are not corrected for many blocks",
        page_title=f"Each block {DONE[result['kind']]}",
        rules=[
            row for row in range(len(phases)) if phases[row : row + 2] == ["silent", "decisive"]
        ],
    )


def ablation_sentences(result: Mapping[str, Any]) -> list[str]:
    """Say what was ablated and what the whole model does.

    Args:
        result: The content of `ablation.json`.

    Returns:
        Sentences.
    """
    margin, accuracy = result["full"]["decision_margin"], result["full"]["accuracy"]
    sentences = [
        f"The whole model on {plural(result['questions'], 'evaluation question')}: DM "
        f"{signed(margin['mean'])}{interval_words((margin['ci_low'], margin['ci_high']), signed)}, "
        f"accuracy {percent(accuracy['mean'])} %."
    ]
    if result["kind"] == "mean":
        count = plural(result["calibration_questions"], "calibration question")
        sentences.append(f"Means are over the tokens of {count}.")
    return sentences
