"""A tuned lens beside the plain logit lens: as a table and in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from phaseprune.report.trace import phases_line
from phaseprune.report.view import add_row, new_table
from phaseprune.report.words import plural, signed


def lens_table(trace: Mapping[str, Any]) -> Table:
    """Tabulate the Decision Margin under both lenses where they differ significantly.

    Args:
        trace: The content of `trace.json`, with a `lens`.

    Returns:
        A table of at most 80 columns; without rows where no readout differs.
    """
    lens = trace["lens"]
    table = new_table(
        "Readouts at which the two lenses differ",
        "KL: divergence of the readout from the model's output, nats a token",
    )
    for name in ("ℓ", "DM tuned", "DM logit", "difference [95 % CI]", "KL tuned", "logit"):
        table.add_column(name, justify="right", no_wrap=True)
    for at in lens["differs"]:
        low, high = lens["difference"]["ci_low"][at], lens["difference"]["ci_high"][at]
        add_row(
            table,
            str(at),
            signed(trace["decision_margin"]["mean"][at]),
            signed(lens["decision_margin"]["mean"][at]),
            f"{signed(lens['difference']['mean'][at])} [{signed(low)}, {signed(high)}]",
            f"{lens['kl_tuned'][at]:.2f}",
            f"{lens['kl_logit'][at]:.2f}",
        )
    return table


def lens_lines(trace: Mapping[str, Any]) -> list[str]:
    """Say how the readouts were made, where it matters, and what the plain lens finds.

    Args:
        trace: The content of `trace.json`.

    Returns:
        Sentences; none without a tuned lens.
    """
    lens = trace.get("lens")
    if not lens:
        return []
    where = "no readout"
    if lens["differs"]:
        where = f"{plural(len(lens['differs']), 'readout')} of {trace['blocks'] + 1}"
    other = {name: lens[name] for name in ("transition", "accuracy")}
    plain = phases_line(trace | other | {"raw_transition": None, "debiased": None})
    return [
        "Readouts are by a tuned lens, fitted to "
        f"{plural(lens['calibration_questions'], 'other question')}. Its Decision Margin differs "
        f"from that of the plain logit lens at {where} (paired t-tests, Holm, p < 0.05).",
        f"By the plain logit lens: {plain}",
    ]
