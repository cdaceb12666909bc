"""Tables of healed models for the terminal, at most 80 columns wide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from phaseprune.report.heal import SIGNIFICANCE
from phaseprune.report.view import add_row, interval_cell, margin_bar, new_table
from phaseprune.report.words import DASH, percent, signed


def healing_table(healing: Mapping[str, Any]) -> Table:
    """Tabulate the Decision Margin by readout before and after healing.

    Args:
        healing: The content of `heal.json`.

    Returns:
        A table of at most 80 columns.
    """
    table = new_table(
        "Decision Margin before and after healing",
        "* p < 0.01: paired t test, Holm over the readouts",
    )
    table.add_column("ℓ", justify="right")
    table.add_column("behind", no_wrap=True)
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    table.add_column("-1   0   +1", no_wrap=True)
    table.add_column("change [95 % CI]", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    change = healing["decision_margin_change"]
    means = [healing[when]["decision_margin_by_readout"]["mean"] for when in ("before", "after")]
    for at, (before, after) in enumerate(zip(*means, strict=True)):
        bounds = (change["ci_low"][at], change["ci_high"][at])
        add_row(
            table,
            str(at),
            "embeddings" if at == 0 else f"block {healing['kept'][at - 1]}",
            signed(before),
            signed(after),
            margin_bar(after),
            f"{signed(change['mean'][at])} [{signed(bounds[0])}, {signed(bounds[1])}]",
            "*" if change["p_value"][at] < SIGNIFICANCE else "",
        )
    return table


def ladder_table(ladder: Mapping[str, Any]) -> Table:
    """Tabulate a ladder: a row a depth.

    Args:
        ladder: The content of `ladder.json`.

    Returns:
        A table of at most 80 columns.
    """
    seeds = len(ladder["seeds"])
    table = new_table(
        "Recovery by remaining depth",
        "* accuracy differs after healing (p < 0.01, adjusted). DM ↑ ↓: at how many "
        "readouts it is higher and lower"
        + ("" if seeds == 1 else f". Means over {seeds} seeds; ↑ ↓ of the first"),
    )
    for name in ("Step", "Left", "Pruned %"):
        table.add_column(name, justify="right")
    table.add_column("Retained before %", justify="right", no_wrap=True)
    table.add_column("and after %", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("DM", justify="right", no_wrap=True)
    table.add_column("DM ↑ ↓", justify="right", no_wrap=True)
    for row in ladder["depths"]:
        before, after = row["decision_margin_before"], row["decision_margin_after"]
        add_row(
            table,
            str(row["step"]),
            str(row["remaining"]),
            percent(row["pruned_share"], 0),
            _retained(row["retained_before"]),
            _retained(row["retained_after"]),
            "*" if row["p_value"] < SIGNIFICANCE else "",
            f"{signed(before)} → {signed(after)}",
            f"{row['readouts_higher']} {row['readouts_lower']} of {row['readouts']}",
        )
    return table


def _retained(point: Mapping[str, Any]) -> str:
    if point["value"] is None:
        return DASH
    return interval_cell(point["value"], point["ci"], 0)
