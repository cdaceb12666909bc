"""What `docs/comparison` shows, from finished runs of `phaseprune compare`.

    phaseprune compare demo --methods all --out runs/compare-demo
    phaseprune compare MODEL --task arc_easy,piqa … --data-dir DIR --out runs/compare-smollm2
    python benchmarks/compare_docs.py runs/compare-demo runs/compare-smollm2

The whole commands stand in docs/comparison/README.md; DIR is made by hub_copies.py, or left out
where the hub can be reached. Writes docs/comparison/tables.md and three figures a task.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from phaseprune.report.collapse import FALL_MARKS
from phaseprune.report.compare import (
    TABLE_NOTE,
    compare_lines,
    debiased_lines,
    numbers_in_words,
    retained_cells,
)
from phaseprune.report.compare_figures import compare_figure, cost_figure, orders_figure
from phaseprune.report.words import DASH, percent

DOCS = Path(__file__).resolve().parents[1] / "docs" / "comparison"


def table(task: Mapping[str, Any]) -> Iterator[str]:
    """A Markdown table: a row a method, what it costs, where it falls, and what it retains."""
    numbers = task["numbers"]
    yield (
        f"| method | block passes | seconds | fitted fall | mean | "
        f"{' | '.join(map(str, numbers))} |"
    )
    yield "|---" * (len(numbers) + 5) + "|"
    for one in task["methods"]:
        shown = (cell.short(narrow=True).plain.strip() for cell in retained_cells(task, one))
        cells = " | ".join(cell.replace("*", "\\*") for cell in shown)
        mean = one["mean_retained"]["value"]
        yield (
            f"| `{one['method']}` | {one['block_passes']:,} | {one['seconds']:,.0f} | "
            f"{falls_at(one['cliff_fit'])} | {DASH if mean is None else percent(mean, 0)} | "
            f"{cells} |"
        )


def falls_at(fit: Mapping[str, Any] | None) -> str:
    """The number of removed blocks at which a method falls, with its interval; what kind it is."""
    if not fit or not fit["found"]:
        return DASH
    low, high = fit["ci"]
    return f"{FALL_MARKS[fit.get('kind')]}, {fit['removed_blocks']} ({low}–{high})"


def section(result: Mapping[str, Any], task: Mapping[str, Any], name: str) -> Iterator[str]:
    """A task's part of tables.md."""
    lines = [*compare_lines(task), *debiased_lines(task)]
    yield from (f"## {name}", "", *(f"{line}  " for line in lines), "")
    note = (
        f"Retained %, its mean over {numbers_in_words(task['common_numbers'])}; fitted fall: the "
        "first number of the lower of two levels, and what the fall is (fall: a cliff or a slope, "
        f"which the questions cannot tell); {TABLE_NOTE}."
    )
    yield from (*table(task), "", note.replace("* best", "\\* best"), "")
    for kind in ("retained", "orders", "cost"):
        yield f"![{kind}]({name}-{kind}.png)"
    yield ""


def main() -> None:
    """Write the tables and figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=DOCS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    lines = [
        "# Methods side by side: all figures",
        "",
        "Written by `python benchmarks/compare_docs.py`; what they say is in "
        "[README.md](README.md).",
        "",
    ]
    for run in options.runs:
        result = json.loads((run / "compare.json").read_text(encoding="utf-8"))
        for task in result["tasks"]:
            name = f"{run.name.removeprefix('compare-')}-{task['folder']}"
            lines += section(result, task, name)
            for kind, draw in (
                ("retained", compare_figure),
                ("orders", orders_figure),
                ("cost", cost_figure),
            ):
                draw(task).savefig(options.out / f"{name}-{kind}.png", dpi=100)
    (options.out / "tables.md").write_text("\n".join(lines), encoding="utf-8")
    print(options.out / "tables.md")


if __name__ == "__main__":
    main()
