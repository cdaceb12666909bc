"""Methods compared, as tables and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from phaseprune.report.collapse import fall_sentence, removed_blocks
from phaseprune.report.view import WIDTH, add_row, new_table
from phaseprune.report.words import DASH, PHASE_NAMES, blocks_in_words, percent, plural

BEST, NOT_WORSE = "*", "~"
TABLE_NOTE = (
    "columns: numbers of removed blocks; passes: block passes of the choice; "
    f"{BEST} best, {NOT_WORSE} not significantly worse (McNemar, Holm)"
)
#: Columns of a number of removed blocks: minus, three digits, a mark, and the gap before.
CELL = 6


def numbers_in_words(numbers: Sequence[int]) -> str:
    """Numbers of removed blocks: ``1 to 9`` when they follow each other, else ``2, 4, 6``."""
    following = list(range(numbers[0], numbers[0] + len(numbers)))
    if len(numbers) > 2 and list(numbers) == following:
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))


def compare_tables(task: Mapping[str, Any]) -> list[Table]:
    """Tabulate what every method retains at every number of removed blocks.

    Args:
        task: A task's entry in `compare.json`.

    Returns:
        Tables of at most 80 columns, more than one where the numbers do not fit beside each other.
    """
    passes = max([len("passes"), *(len(f"{one['block_passes']:,}") for one in task["methods"])])
    return [_table(task, numbers) for numbers in number_parts(task, passes + 2)]


def number_parts(task: Mapping[str, Any], taken: int) -> list[Sequence[int]]:
    """Share out the numbers of removed blocks among tables of at most 80 columns.

    Args:
        task: A task's entry in `compare.json`.
        taken: Columns that are taken beside those of the methods' names.

    Returns:
        The numbers of each table.
    """
    names = max([len("method"), *(len(one["method"]) for one in task["methods"])])
    numbers = task["numbers"]
    most = max(1, (WIDTH - names - taken) // CELL)
    parts = -(-len(numbers) // most)
    share = -(-len(numbers) // parts)
    return [numbers[at : at + share] for at in range(0, len(numbers), share)]


def _table(task: Mapping[str, Any], numbers: Sequence[int]) -> Table:
    what = "retained %" if task["full"]["accuracy"] > task["chance"] else "accuracy %"
    table = new_table(f"{task['folder']}: {what}")
    table.add_column("method", no_wrap=True)
    table.add_column("passes", justify="right", no_wrap=True)
    for number in numbers:
        table.add_column(str(number) + " ", justify="right", no_wrap=True, min_width=CELL - 1)
    for row in table_rows(task, numbers):
        cells = [
            Text(value + (mark or " "), style="bold" if mark == BEST else "")
            for value, mark in row["cells"]
        ]
        add_row(table, row["method"], f"{row['block_passes']:,}", *cells)
    return table


def table_rows(task: Mapping[str, Any], numbers: Sequence[int]) -> list[dict[str, Any]]:
    """The rows of a table: method, block passes, and (per cent, mark) for each number.

    Args:
        task: A task's entry in `compare.json`.
        numbers: Which of its numbers of removed blocks.

    Returns:
        A row a method; a dash where it has no choice. Accuracy stands in place of retained where
        the full model is at chance.
    """
    stands = {row["removed_blocks"]: row for row in task["by_removed"]}
    rows = []
    for one in task["methods"]:
        cells = {cell["removed_blocks"]: cell for cell in one["cells"]}
        row = []
        for number in numbers:
            if number not in cells:
                row.append((DASH, ""))
                continue
            cell = cells[number]
            value = cell["accuracy"] if cell["retained"] is None else cell["retained"]
            row.append((percent(value, 0), _mark(one["method"], stands[number])))
        rows.append({"method": one["method"], "block_passes": one["block_passes"], "cells": row})
    return rows


def _mark(method: str, stand: Mapping[str, Any]) -> str:
    if method in stand["best"]:
        return BEST
    return NOT_WORSE if method in stand["not_worse"] else ""


def compare_lines(task: Mapping[str, Any]) -> list[str]:
    """Say what a comparison comes to, no more than its tests allow.

    Args:
        task: A task's entry in `compare.json`.

    Returns:
        Sentences.
    """
    lines = [_full_line(task)]
    if task["methods"]:
        lines += [_cliff_line(task), *_never_worse_lines(task), *_front_lines(task)]
    return lines + _left_out_lines(task["left_out"])


def _full_line(task: Mapping[str, Any]) -> str:
    full = task["full"]
    low, high = full["ci"]
    return (
        f"{task['folder']}: {plural(len(task['methods']), 'method')} chose on "
        f"{plural(task['calibration_questions'], 'calibration question')}; on "
        f"{task['evaluation_questions']} others the full model's accuracy is "
        f"{percent(full['accuracy'])} % (95 % CI {percent(low)} to {percent(high)}), chance is "
        f"{percent(task['chance'])} %."
    )


def _cliff_line(task: Mapping[str, Any]) -> str:
    if task["full"]["accuracy"] <= task["chance"]:
        return "The full model is not above chance, so that nothing can be retained."
    common, cliff = numbers_in_words(task["common_numbers"]), task["cliff"]
    follows = f" What follows is of {common} removed."
    if cliff is None or "found" not in cliff:  # of an older version: a largest one-step loss
        return follows.strip()
    subject = "What the best method at each number retains"
    return fall_sentence(cliff, subject, removed_blocks) + follows


def _never_worse_lines(task: Mapping[str, Any]) -> list[str]:
    """Which methods cannot be told from the best one at any number before the cliff."""
    common, worse = task["common_numbers"], set()
    for row in task["by_removed"]:
        if row["removed_blocks"] in common:
            worse |= set(row["worse"])
    full = [
        one
        for one in task["methods"]
        if {cell["removed_blocks"] for cell in one["cells"]} >= set(common)
    ]
    if len(full) < 2:  # nothing to compare with
        return []
    never = sorted((one for one in full if one["method"] not in worse), key=_cost)
    if not never:
        return [
            "Every method is significantly worse than the best at one of these numbers at least."
        ]
    if len(never) == len(full):
        return [
            "No significant difference from the best at any of these numbers for any of the "
            f"{len(full)} methods: these questions do not tell them apart."
        ]
    named = ", ".join(f"{one['method']} ({_passes(one)})" for one in never)
    others = len(full) - len(never)
    rest = len(task["methods"]) - len(full)
    short = f" {plural(rest, 'method')} cannot remove so many: not judged here." if rest else ""
    return [
        "Best, or with no significant difference from the best, at each of these numbers: "
        f"{named}. "
        + ("The other one is" if others == 1 else f"The other {others} are")
        + " significantly worse at one of them at least."
        + short
    ]


def _cost(one: Mapping[str, Any]) -> tuple[int, float]:
    return one["block_passes"], -(one["mean_retained"]["value"] or 0.0)


def _passes(one: Mapping[str, Any]) -> str:
    return f"{one['block_passes']:,} block passes" if one["block_passes"] else "free"


def _front_lines(task: Mapping[str, Any]) -> list[str]:
    """The front of mean retained against cost, and what its steps are worth."""
    by = {one["method"]: one for one in task["methods"]}
    if not task["front"]:
        return []
    told = ", ".join(
        f"{name} {percent(by[name]['mean_retained']['value'])} % ({_passes(by[name])})"
        for name in task["front"]
    )
    lines = [f"Front of mean retained against cost: {told}."]
    for gain in task["gains"]:
        ci = gain["ci"]
        interval = f" (95 % CI {percent(ci[0])} to {percent(ci[1])})" if ci else ""
        verdict = "a significant" if gain["significant"] else "no significant"
        lines.append(
            f"{gain['method']} retains {percent(gain['value'])} points{interval} more than the "
            f"cheaper {gain['than']}: {verdict} difference."
        )
    predicted = [one for one in task["methods"] if one["budget"]]
    told = dict.fromkeys([*task["front"], *(one["method"] for one in predicted)])
    lines += [_fit_line(name, by[name]["cliff_fit"]) for name in told]
    return lines + [_budget_line(one, task["transition"]) for one in predicted]


def _budget_line(one: Mapping[str, Any], transition: Mapping[str, Any]) -> str:
    method, budget = one["method"], one["budget"]
    if budget["blocks"] is None:
        return f"{method} predicted no budget: the calibration questions are answered by chance."
    of = f"{plural(budget['blocks'], 'block')} ({budget['low']} to {budget['high']})"
    more = "; its order goes no further" if budget["bound_by"] == "order" else ""
    doubt = "" if transition["found"] else " No transition was found there that would support it."
    return f"{method} predicted from the calibration questions that {of} can go{more}.{doubt}"


def _fit_line(method: str, fit: Mapping[str, Any] | None) -> str:
    if fit is None:
        return f"No fall is fitted to {method}, which is drawn."
    return fall_sentence(fit, f"What {method} retains", removed_blocks)


def _left_out_lines(left_out: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence a reason, with all methods that it keeps out."""
    by_reason: dict[str, list[str]] = {}
    for one in left_out:
        at = "" if one["at"] == "all" else f" at {one['at']}"
        by_reason.setdefault(one["reason"], []).append(one["method"] + at)
    return [f"Left out: {', '.join(of)} ({reason})." for reason, of in by_reason.items()]


def standing_lines(task: Mapping[str, Any]) -> list[str]:
    """Say for each number which method is best and which others are not significantly worse.

    Args:
        task: A task's entry in `compare.json`.

    Returns:
        A sentence a number.
    """
    lines = []
    for row in task["by_removed"]:
        if not row["best"]:
            continue
        parts = [f"{row['removed_blocks']} removed: best {', '.join(row['best'])}"]
        for name, key in (("not significantly worse", "not_worse"), ("worse", "worse")):
            if row[key]:
                parts.append(f"{name}: {', '.join(row[key])}")
        lines.append("; ".join(parts) + ".")
    return lines


def phases_words(task: Mapping[str, Any]) -> str:
    """Say which phases stand behind the orders of removal.

    Args:
        task: A task's entry in `compare.json`.

    Returns:
        A sentence.
    """
    transition = task["transition"]
    if not transition["found"]:
        return "No transition is found on the calibration questions, so no phases are drawn."
    named = " and ".join(
        f"{PHASE_NAMES[phase]} ({blocks_in_words(transition[f'{phase}_blocks'])})"
        for phase in ("silent", "decisive")
    )
    return f"Behind them the phases of the full model on the calibration questions: {named}."
