"""The table and the sentences of an ablation, from the content of ``ablation.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from phaseprune.report.view import add_row, interval_cell, new_table
from phaseprune.report.words import percent, plural, signed

#: Kind -> what stands over its figures, and what is done in words.
HEADINGS = {"mean": "mean", "swap": "swapped", "repeat": "repeated"}
DONE = {
    "mean": "replaced by the mean of its contribution",
    "swap": "swapped with the next one",
    "repeat": "run twice",
}


def ablation_table(result: Mapping[str, Any]) -> Table:
    """Tabulate an ablation: a row a block, beside the model without the block.

    Args:
        result: The content of `ablation.json`.

    Returns:
        A table of at most 80 columns, a rule between the phases.
    """
    heading = HEADINGS[result["kind"]]
    table = new_table(
        f"{result['model']} on {result['task']}: each block {DONE[result['kind']]}",
        "difference by question; intervals are not corrected for many blocks",
    )
    table.add_column("Block", justify="right", no_wrap=True)
    table.add_column(f"{heading}\nDM [95 % CI]", justify="right", no_wrap=True)
    table.add_column("\nAcc. % [CI]", justify="right", no_wrap=True)
    table.add_column("removed\nDM", justify="right", no_wrap=True)
    table.add_column("\nAcc. %", justify="right", no_wrap=True)
    table.add_column("difference\nof DM [95 % CI]", justify="right", no_wrap=True)
    accuracy, phases = result["accuracy"], result["phases"]
    for row, block in enumerate(result["blocks"]):
        add_row(
            table,
            f"{block}, {block + 1}" if result["kind"] == "swap" else str(block),
            _margin(result["decision_margin"], row),
            interval_cell(
                accuracy["mean"][row], (accuracy["ci_low"][row], accuracy["ci_high"][row]), 0
            ),
            signed(result["removal_margin"]["mean"][row]),
            percent(result["removal_accuracy"]["mean"][row], 0),
            _margin(result["difference"], row),
            end_section=phases[row : row + 2] == ["silent", "decisive"],
        )
    return table


def _margin(interval: Mapping[str, Any], row: int) -> str:
    mean, low, high = (signed(interval[part][row]) for part in ("mean", "ci_low", "ci_high"))
    return f"{mean} [{low}, {high}]"


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
        f"{signed(margin['mean'])} (95 % CI {signed(margin['ci_low'])} to "
        f"{signed(margin['ci_high'])}), accuracy {percent(accuracy['mean'])} %."
    ]
    if result["kind"] == "mean":
        count = plural(result["calibration_questions"], "calibration question")
        sentences.append(f"Means are over the tokens of {count}.")
    return sentences
