"""Methods compared by letters: what they retain with the label prior taken off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phaseprune.report.compare import numbers_in_words
from phaseprune.report.words import DASH, percent

#: Kind of a collapse -> what it means.
KINDS = {
    "calibration": "Collapsed in calibration alone, as without the label prior more is retained",
    "knowledge": "Collapsed in knowledge, without the label prior as well",
    "unclear": "Collapsed in calibration or in knowledge, which these questions cannot tell",
}


def has_debiased(task: Mapping[str, Any]) -> bool:
    """Whether a task's entry in `compare.json` has figures with the label prior taken off."""
    return any("retained_debiased" in cell for one in task["methods"] for cell in one["cells"])


def debiased_lines(task: Mapping[str, Any]) -> list[str]:
    """Say which choices lose the knowledge, and which the calibration alone.

    Args:
        task: A task's entry in `compare.json`.

    Returns:
        A sentence a kind of collapse; none for texts and for entries of older versions.
    """
    collapsed: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for one in task["methods"]:
        for kind, of in collapsed.items():
            at = [c["removed_blocks"] for c in one["cells"] if c.get("collapse") == kind]
            if at:
                of.append(f"{one['method']} at {numbers_in_words(at)}")
    return [
        f"{KINDS[kind]} (at numbers of removed blocks): {', '.join(of)}."
        for kind, of in collapsed.items()
        if of
    ]


def debiased_html_tables(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The table of what is retained with the label prior taken off, for the page.

    Args:
        task: A task's entry in `compare.json`.

    Returns:
        ``name``, ``head``, ``rows`` and ``notes``; none for texts and for entries of older
        versions.
    """
    if not has_debiased(task):
        return []
    rows = []
    for one in task["methods"]:
        cells = {cell["removed_blocks"]: cell for cell in one["cells"]}
        told = [_cell(cells.get(number, {})) for number in task["numbers"]]
        rows.append([{"text": one["method"], "strong": False}, *told])
    return [{
        "name": f"{task['folder']}: retained % without the label prior",
        "head": ["method", *map(str, task["numbers"])],
        "rows": rows,
        "notes": [
            "The label prior is how much a letter is preferred whatever the question says; it is "
            "taken off the scores of the full and of the pruned model. Bold: as it answers the "
            "model has collapsed, and without the label prior it has not.",
        ],
    }]  # fmt: skip


def _cell(cell: Mapping[str, Any]) -> dict[str, Any]:
    value = cell.get("retained_debiased")
    text = DASH if value is None else percent(value, 0)
    return {"text": text, "strong": cell.get("collapse") == "calibration"}
