"""A plan: how many blocks could go, and which first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phaseprune.report.trace import beside_trace, phases_line
from phaseprune.report.view import PAGE, Column, Estimate, Figure, Table, View, phase_cell
from phaseprune.report.words import DEBIASED_NOTE, percent, plural, signed

#: What the budgets that were held against pruned models so far have shown (docs/plan.md).
NO_SKILL = (
    "Budgets predicted so far were no nearer to where models fell than one and the same number for "
    "all would have been."
)


def plan_view(result: Mapping[str, Any], trace: Mapping[str, Any] | None = None) -> View:
    """Show a plan.

    Args:
        result: The content of `plan.json`.
        trace: The content of `trace.json`, where it is known.

    Returns:
        Its view.
    """
    figure = Figure(
        "plan",
        "plan_figure",
        (result,),
        "The blocks in the order in which they could go, Silent and Decisive ones in their "
        "colours. Look for where influence together climbs, or what is read off falls: a model "
        "loses its decisions about there.",
    )
    phases = [phases_line(trace)] if trace else []
    body = [plan_table(result), *phases, *plan_lines(result)]
    return beside_trace(View(body, figures=[figure]), trace)


def plan_table(result: Mapping[str, Any]) -> Table:
    """Tabulate a plan: a row a block, in the order of removal, a rule behind the budget.

    Args:
        result: The content of `plan.json`.

    Returns:
        The table. Of letters the terminal has no room for the Decision Margin.
    """
    rows = result["rows"]
    read = [row["read_off"] for row in rows]
    letters = any("retained_debiased" in one for one in read)
    limits = ", ".join(f"{limit:.2f}" for limit in result["limits"]["influence"])
    retained = "retained %\nread off [CI]" if letters else "retained %\nread off [95 % CI]"
    columns = [
        Column("Removed", [str(row["removed_blocks"]) for row in rows]),
        Column("Block", [str(row["block"]) for row in rows]),
        Column("Phase", [phase_cell(row["phase"]) for row in rows], left=True),
        Column("Influence", [f"{row['influence']:.3f}" for row in rows]),
        Column(
            "together",
            [f"{row['influence_together']:.3f}" for row in rows],
            page="Influence together",
        ),
        Column(
            "DM\nread off",
            [signed(one["decision_margin"]) for one in read],
            only=PAGE if letters else None,
        ),
        Column(retained, [Estimate(one["retained"], one["retained_ci"]) for one in read]),
    ]
    if letters:
        columns.append(
            Column(
                "debiased %\nread off [CI]",
                [Estimate(one["retained_debiased"], one["retained_debiased_ci"]) for one in read],
                page="retained %, debiased, read off",
            )
        )
    return Table(
        f"{result['model']} on {result['task']}: which blocks could go, in this order",
        columns,
        f"read off: what the other blocks add, as if none saw the change; together: rule of thumb "
        f"{limits}" + (f"; {DEBIASED_NOTE}" if letters else ""),
        page_title="Which blocks could go, in this order",
        rules=[
            number
            for number, row in enumerate(rows)
            if row["removed_blocks"] == result["budget"]["blocks"]
        ],
    )


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
