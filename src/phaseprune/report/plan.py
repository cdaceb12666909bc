"""A plan as a table and in words, from the content of ``plan.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from phaseprune.report.view import DEBIASED_NOTE, add_row, interval_cell, new_table
from phaseprune.report.words import DASH, PHASE_NAMES, percent, plural, signed

#: What the budgets that were held against pruned models so far have shown (docs/plan.md).
NO_SKILL = (
    "Budgets predicted so far were no nearer to where models fell than one and the same number for "
    "all would have been."
)


def plan_table(result: Mapping[str, Any]) -> Table:
    """Tabulate a plan: a row a block, in the order of removal, a rule behind the budget.

    Args:
        result: The content of `plan.json`.

    Returns:
        A table of at most 80 columns.
    """
    letters = any("retained_debiased" in row["read_off"] for row in result["rows"])
    limits = ", ".join(f"{limit:.2f}" for limit in result["limits"]["influence"])
    table = new_table(
        f"{result['model']} on {result['task']}: which blocks could go, in this order",
        f"read off: what the other blocks add, as if none saw the change; together: rule of thumb "
        f"{limits}" + (f"; {DEBIASED_NOTE}" if letters else ""),
    )
    # Of letters there is no room for the Decision Margin; plan.json has it.
    heads = ["Removed", "Block", "Phase", "Influence", "together"]
    heads += ["retained %\nread off [CI]", "debiased %\nread off [CI]"] if letters else [
        "DM\nread off", "retained %\nread off [95 % CI]"]  # fmt: skip
    for number, head in enumerate(heads):
        table.add_column(head, justify="left" if number == 2 else "right", no_wrap=True)
    for row in result["rows"]:
        read = row["read_off"]
        add_row(
            table,
            str(row["removed_blocks"]),
            str(row["block"]),
            PHASE_NAMES.get(row["phase"], DASH),
            f"{row['influence']:.3f}",
            f"{row['influence_together']:.3f}",
            *([] if letters else [signed(read["decision_margin"])]),
            interval_cell(read["retained"], read["retained_ci"], 0),
            *(
                [interval_cell(read["retained_debiased"], read["retained_debiased_ci"], 0)]
                if letters
                else []
            ),
            end_section=row["removed_blocks"] == result["budget"]["blocks"],
        )
    return table


def plan_lines(result: Mapping[str, Any]) -> list[str]:
    """Say the budget, what bounds it, and what it cost.

    Args:
        result: The content of `plan.json`.

    Returns:
        Sentences.
    """
    budget, rows = result["budget"], result["rows"]
    cost = f"Cost: {result['block_passes']} block passes, one run of the full model."
    if budget["blocks"] is None:
        return [
            f"No budget: the full model's accuracy {percent(result['accuracy'])} % is not above "
            f"chance {percent(result['chance'])} %; take other questions or more of them.",
            cost,
        ]
    count = budget["blocks"]
    of = f"{count} of {plural(result['blocks'], 'block')}"
    between = f" ({budget['low']} to {budget['high']})"
    limit = result["limits"]["influence"][1]
    why = {
        "influence": f"with the next one, what was removed turns the states by more than {limit:g}",
        "decision": "with the next one, less than half of the decisions above chance is read off "
        "what the others add",
        "order": "nothing speaks against the last of them",
    }[budget["bound_by"]]
    lines = [f"Predicted budget: {of}{between}; {why}."]
    if not result["transition"]["found"]:
        lines.append("No transition was found, so there are no phases that would support it.")
    phases = [row["phase"] for row in rows[:count]]
    if result["transition"]["found"] and count:
        lines.append(
            f"Of these {phases.count('decisive')} are Decisive and {phases.count('silent')} Silent."
        )
    return [*lines, f"It is a prediction, and nothing was removed yet. {NO_SKILL} {cost}"]
