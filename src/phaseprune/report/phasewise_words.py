"""Phase-wise pruning as a table and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from phaseprune.report.tables import add_row, interval_cell, new_table
from phaseprune.report.words import PHASE_NAMES, percent

KIND_NAMES = PHASE_NAMES | {"anywhere": "Anywhere"}


def phasewise_table(result: Mapping[str, Any]) -> Table:
    """Tabulate retained accuracy by number of removed blocks and by where they are from.

    Args:
        result: The result of a finished phasewise run.

    Returns:
        A table of at most 80 columns.
    """
    table = new_table(
        "Retained % of sets of removed blocks [95 % CI], mean over sets",
        "p of Decisive - Silent, corrected over the rows (Holm); * all sets there are",
    )
    table.add_column("m", justify="right")
    for name in (*KIND_NAMES.values(), "Decisive - Silent"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("p", justify="right", no_wrap=True)
    for row in (*result["by_removed"], {"removed_blocks": "all", **result["pooled"]}):
        cells = [
            interval_cell(row[kind]["retained"], row[kind]["retained_ci"], 0)
            + ("*" if row[kind]["all_sets"] else " ")
            if kind in row
            else ""
            for kind in KIND_NAMES
        ]
        add_row(
            table,
            str(row["removed_blocks"]),
            *cells,
            interval_cell(row["difference"], row["difference_ci"], 0),
            p_in_words(row["p_corrected"]),
        )
    return table


def p_in_words(p_value: float | None) -> str:
    """Write a p-value: ``0.03``, ``<0.01``, or a dash."""
    if p_value is None:
        return "–"
    return "<0.01" if p_value < 0.01 else f"{p_value:.2f}"


def phasewise_lines(result: Mapping[str, Any]) -> list[str]:
    """Say which phase accuracy hangs on, and what the walk over all sets saved.

    Args:
        result: The result of a finished phasewise run.

    Returns:
        Two sentences.
    """
    run, alone = result["block_passes"], result["naive_block_passes"]
    return [
        difference_line(result),
        f"{run} block passes, where running each set by itself takes {alone}.",
    ]


def difference_line(result: Mapping[str, Any]) -> str:
    """Say the one number: the difference of retained accuracy at equal numbers of blocks."""
    pooled, most = result["pooled"], result["most"]
    difference = pooled["difference"]
    numbers = "1 block" if most == 1 else f"1 to {most} blocks"
    start = f"Of {numbers} removed, those of the Silent Phase cost"
    points = f"{percent(abs(difference))} points of retained"
    if pooled["difference_ci"]:
        low, high = pooled["difference_ci"]
        points += f" (95 % CI of Decisive - Silent {percent(low)} to {percent(high)})"
    more = "more" if difference > 0 else "less"
    if not pooled["significant"]:
        return (
            f"{start} {points} {more} than those of the Decisive Phase: no significant difference."
        )
    alone = [str(row["removed_blocks"]) for row in result["by_removed"] if row["significant"]]
    return (
        f"{start} {points} {more} than those of the Decisive Phase; {_numbers(alone, result)} "
        "after the correction."
    )


def difference_tile(result: Mapping[str, Any]) -> tuple[str, str, str]:
    """Name, number and what stands below it, for the head of a page."""
    pooled = result["pooled"]
    below = "points of retained, no interval"
    if pooled["difference_ci"]:
        low, high = pooled["difference_ci"]
        below = f"points, 95 % CI {percent(low)} to {percent(high)}"
    return "Decisive - Silent", percent(pooled["difference"]), below


def _numbers(significant: Sequence[str], result: Mapping[str, Any]) -> str:
    count = len(result["by_removed"])
    if len(significant) == count:
        return "significant at each number of blocks"
    return f"significant at {len(significant)} of {count} numbers of blocks"
