"""What the report of a run of ``compare`` shows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phaseprune.report.compare import (
    BEST,
    NOT_WORSE,
    compare_lines,
    phases_words,
    standing_lines,
    table_rows,
)
from phaseprune.report.compare_debiased import debiased_html_tables, debiased_lines
from phaseprune.report.compare_figures import compare_figure, cost_figure, orders_figure
from phaseprune.report.compare_guards import (
    guarded_html_tables,
    guarded_lines,
    has_guards,
    text_lines,
)
from phaseprune.report.compare_guards_figure import guarded_figure
from phaseprune.report.run_files import read_json
from phaseprune.report.svg import inline_svg

_KEYS = ("model", "blocks", "tasks")


def compare_page(run: Path) -> dict[str, Any] | None:
    """Make the sentences, tables and figures of the page.

    Args:
        run: The run directory.

    Returns:
        Those by name, or None where the run is not finished.

    Raises:
        UserError: Its result cannot be read.
    """
    found = read_json(run / "compare.json", _KEYS)
    if found is None:
        return None
    tasks = found["tasks"]
    return {
        "sentences": [
            *(
                line
                for task in tasks
                for line in [*compare_lines(task), *debiased_lines(task), *guarded_lines(task)]
            ),
            *text_lines(found),
        ],
        "tiles": [],
        "figures": [figure for task in tasks if task["methods"] for figure in _figures(task)],
        "tables": [
            table
            for task in tasks
            for table in [
                compare_html_table(task), *debiased_html_tables(task), *guarded_html_tables(task)
            ]  # fmt: skip
        ],
    }


def compare_html_table(task: Mapping[str, Any]) -> dict[str, Any]:
    """The table of a task, for the page.

    Args:
        task: A task's entry in `compare.json`.

    Returns:
        ``name``, ``head``, ``rows`` (of cells with ``text`` and ``strong``) and ``notes``.
    """
    rows = [
        [
            {"text": row["method"], "strong": False},
            {"text": f"{row['block_passes']:,}", "strong": False},
            *(
                {"text": f"{value} {mark}".strip(), "strong": mark == BEST}
                for value, mark in row["cells"]
            ),
        ]
        for row in table_rows(task, task["numbers"])
    ]
    return {
        "name": f"{task['folder']}: retained % by number of removed blocks",
        "head": ["method", "block passes", *map(str, task["numbers"])],
        "rows": rows,
        "notes": [
            f"{BEST} best, {NOT_WORSE} not significantly worse than the best: exact McNemar tests "
            "on the evaluation questions, corrected over all pairs at all numbers (Holm).",
            *standing_lines(task),
        ],
    }


def _figures(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    drawn = (
        (
            "retained", compare_figure,
            f"{task['folder']}: what is left of the accuracy above chance, on evaluation questions "
            "that no method saw. Names stand in the order of the mean, last those that cannot "
            "remove so many.",
        ),
        (
            "orders", orders_figure,
            f"{task['folder']}: which block each method removes first (1), second, and so on. "
            + phases_words(task),
        ),
        (
            "cost", cost_figure,
            f"{task['folder']}: what the choice cost and what it retains, with 95 % intervals; the "
            "line is the front. One pass is one block run over all calibration questions, or over "
            "the text.",
        ),
    )  # fmt: skip
    if has_guards(task):
        drawn += ((
            "guards", guarded_figure,
            f"{task['folder']}: what each choice does to the model beyond the questions. Loss on "
            "plain text over the full model's, tokens of greedy continuations equal to the full "
            "model's, repeated 4-grams; the dotted line is the full model.",
        ),)  # fmt: skip
    return [
        {"name": name, "svg": inline_svg(draw(task), name, caption), "caption": caption}
        for key, draw, caption in drawn
        for name in [f"{task['folder']}-{key}"]
    ]
