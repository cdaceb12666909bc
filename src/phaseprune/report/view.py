"""Tables for the terminal, at most 80 columns wide, readable without colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import Box
from rich.cells import cell_len, set_cell_size
from rich.table import Table
from rich.text import Text

from phaseprune.report.collapse import step_marks
from phaseprune.report.words import DASH, PHASE_NAMES, percent, signed

WIDTH = 80
#: Under tables of letters.
DEBIASED_NOTE = (
    "debiased: less the label prior, how much a letter is preferred whatever the question says"
)
BAR_HALF = 5
PHASE_STYLES = {"silent": "blue", "decisive": "dark_orange3", None: ""}
# Rules under the head and between sections, nothing else.
_RULES = Box("    \n    \n ── \n    \n ── \n    \n    \n    \n")
_LEVELS = "▁▂▃▄▅▆▇█"
_PARTS = " ▏▎▍▌▋▊▉█"


def trace_table(trace: Mapping[str, Any]) -> Table:
    """Tabulate a trace: a row a readout, the transition as a rule between the phases.

    Args:
        trace: The content of `trace.json`.

    Returns:
        A table of at most 80 columns. Of letters it shows what stands with the label prior taken
        off beside what the model answers, in place of the accuracy's interval. The shares of up to
        four options are numbers; for more, the most frequent one is named.
    """
    transition, labels = trace["transition"], trace["option_labels"]
    first_decisive = transition["readout"] if transition["found"] else None
    debiased = trace.get("debiased")
    table = new_table(f"{trace['model']} on {trace['task']}", DEBIASED_NOTE if debiased else None)
    table.add_column("ℓ", justify="right")
    if debiased:
        table.add_column("DM", justify="right", no_wrap=True)
    table.add_column(
        "debiased DM\n[95 % CI]" if debiased else "DM [95 % CI]", justify="right", no_wrap=True
    )
    table.add_column("-1   0   +1", width=2 * BAR_HALF + 1)
    table.add_column(
        "Acc. %\n raw deb." if debiased else "Acc. % [CI]", justify="right", no_wrap=True
    )
    table.add_column(Text(_option_header(labels)), no_wrap=True)
    table.add_column("Phase", no_wrap=True)
    for at in trace["readouts"]:
        phase = None
        if first_decisive is not None:
            phase = "silent" if at < first_decisive else "decisive"
        name = PHASE_NAMES.get(phase, DASH) + (" ◀" if at == first_decisive else "")
        add_row(
            table,
            str(at),
            *_readout_cells(trace, at),
            _option_shares(trace["option_frequency"][at], labels),
            Text(name, style=PHASE_STYLES[phase]),
            end_section=first_decisive is not None and at == first_decisive - 1,
        )
    table.add_section()
    empty = [""] * (4 if debiased else 3)
    add_row(table, "gold", *empty, _option_shares(trace["gold_frequency"], labels), "")
    return table


def _readout_cells(trace: Mapping[str, Any], at: int) -> list[str]:
    """The Decision Margin and the accuracy of a readout, as far as there is room."""
    debiased = trace.get("debiased")
    margin, accuracy = (debiased or trace)["decision_margin"], trace["accuracy"]
    mean = margin["mean"][at]
    bounds = f"[{signed(margin['ci_low'][at])}, {signed(margin['ci_high'][at])}]"
    cells = [f"{signed(mean)} {bounds}", margin_bar(mean)]
    if debiased:
        both = (accuracy["mean"][at], debiased["accuracy"]["mean"][at])
        shares = " ".join(f"{percent(share, 0):>3}" for share in both)
        return [signed(trace["decision_margin"]["mean"][at]), *cells, shares]
    bounds = (accuracy["ci_low"][at], accuracy["ci_high"][at])
    return [*cells, interval_cell(accuracy["mean"][at], bounds, 0)]


def steps_table(
    steps: Sequence[Mapping[str, Any]], result: Mapping[str, Any] | None = None
) -> Table:
    """Tabulate the steps of a pruning run.

    Args:
        steps: The lines of `steps.jsonl`.
        result: The result of a finished run, for the chosen step and where retained falls.

    Returns:
        A table of at most 80 columns; of letters it shows what is retained with the label prior
        taken off, in place of the accuracy's interval.
    """
    letters = steps[0].get("retained_debiased_ci") is not None
    caption = "Accuracy, DM and retained on the evaluation questions"
    table = new_table("Pruning steps", f"{caption}; {DEBIASED_NOTE}" if letters else caption)
    halves = any(isinstance(step["removed"], str) for step in steps)
    heads = ["Step", "Half" if halves else "Block", "Phase"]
    heads += ["Acc. %"] if letters else ["Accuracy % [CI]"]
    heads += ["DM", "Retained %\n[95 % CI]" if letters else "Retained % [CI]"]
    heads += ["debiased %\n[95 % CI]"] if letters else []
    rows = [_step_cells(step, letters) for step in steps]
    for place, head in enumerate(heads):
        table.add_column(head, justify="left" if place == 2 else "right", no_wrap=True)
    widths = [
        max(len(line) for cell in column for line in str(cell).split("\n"))
        for column in zip(heads, *rows, strict=True)
    ]
    table.add_column("", max_width=WIDTH - sum(widths) - len(widths))
    for step, row in zip(steps, rows, strict=True):
        add_row(table, *row, ", ".join(step_marks(step, result)))
    return table


def _step_cells(step: Mapping[str, Any], letters: bool) -> list[str | Text]:
    evaluation, phase = step["evaluation"], step["phase"]
    full, accuracy = step["removed"] is None, evaluation["accuracy"]
    debiased = (step.get("retained_debiased"), step.get("retained_debiased_ci"))
    return [
        str(step["step"]),
        "full" if full else str(step["removed"]),
        Text(PHASE_NAMES.get(phase, "" if full else DASH), style=PHASE_STYLES[phase]),
        percent(accuracy) if letters else interval_cell(accuracy, evaluation.get("ci"), 1),
        signed(evaluation["decision_margin"]),
        interval_cell(step["retained"], step.get("retained_ci"), 0),
        *([interval_cell(*debiased, 0)] if letters else []),
    ]


def methods_table(methods: Sequence[Mapping[str, Any]], blocks: int, removed: int) -> Table:
    """Tabulate the ways to choose blocks, a row a method.

    Args:
        methods: Entries of `methods --json`.
        blocks: Of the model that costs are stated for.
        removed: How many of them are removed.

    Returns:
        A table of at most 80 columns.
    """
    table = new_table("Which blocks to remove", f"passes: to remove {removed} of {blocks} blocks")
    table.add_column("method", no_wrap=True)
    table.add_column("looks at", no_wrap=True)
    table.add_column("block passes", no_wrap=True)
    table.add_column("passes", justify="right", no_wrap=True)
    table.add_column("arXiv", no_wrap=True)
    for method in methods:
        needs = ", ".join(method["needs"])
        add_row(
            table, method["name"], needs or DASH, method["cost"], f"{method['block_passes']:,}",
            method["arxiv"] or DASH,
        )  # fmt: skip
    return table


def margin_bar(value: float) -> str:
    """Draw a Decision Margin from -1 to 1 as a bar to the left or to the right of a zero mark.

    Args:
        value: The margin.

    Returns:
        Eleven characters with the zero mark in the middle.
    """
    if value < 0:
        # Blocks that fill from the right come in halves only, those from the left in eighths.
        whole, half = divmod(min(round(-value * 2 * BAR_HALF), 2 * BAR_HALF), 2)
        return ("▐" * half + "█" * whole).rjust(BAR_HALF) + "│" + " " * BAR_HALF
    whole, rest = divmod(min(round(value * 8 * BAR_HALF), 8 * BAR_HALF), 8)
    bar = "█" * whole + (_PARTS[rest] if rest else "")
    return " " * BAR_HALF + "│" + bar.ljust(BAR_HALF)


def new_table(title: str, caption: str | None = None) -> Table:
    """Make an empty table in the style of all.

    Args:
        title: Over it; cut where it is too long.
        caption: Under it.

    Returns:
        The table, without columns.
    """
    return Table(
        title=Text(_shortened(title), style="bold"),
        caption=Text(caption, style="dim") if caption else None,
        box=_RULES,
        padding=0,
        pad_edge=False,
        title_justify="left",
        caption_justify="left",
        show_edge=False,
    )


def add_row(table: Table, *cells: str | Text, end_section: bool = False) -> None:
    """Add a row whose strings are shown as they are, never read as markup."""
    texts = [cell if isinstance(cell, Text) else Text(cell) for cell in cells]
    table.add_row(*texts, end_section=end_section)


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"


def interval_cell(value: float | None, interval: Sequence[float] | None, digits: int) -> str:
    """Write a share and its interval as per cent: ``86 [82, 89]``.

    Args:
        value: The share, or None.
        interval: Its lower and upper bound, or None.
        digits: Digits after the point.

    Returns:
        The words, or a dash.
    """
    if value is None or not interval:
        return percent(value, digits)
    low, high = interval
    return f"{percent(value, digits)} [{percent(low, digits)}, {percent(high, digits)}]"


def _option_header(labels: Sequence[str]) -> str:
    if len(labels) > 4:
        return "OF, top option"
    if all(cell_len(label) <= 3 for label in labels):
        return "OF %\n" + " ".join(" " * (3 - cell_len(label)) + label for label in labels)
    return "OF %"


def _option_shares(shares: Sequence[float], labels: Sequence[str]) -> str:
    if len(shares) <= 4:
        return " ".join(f"{100 * share:3.0f}" for share in shares)
    top = max(range(len(shares)), key=lambda option: shares[option])
    most = f"{set_cell_size(labels[top], 3).rstrip()} {percent(shares[top], 0)} %"
    if len(shares) > 6:
        return most
    # A space would hide an option: the lowest bar stands for "almost never".
    bars = "".join(_LEVELS[min(int(8 * share), 7)] for share in shares)
    return f"{bars} {most}"
