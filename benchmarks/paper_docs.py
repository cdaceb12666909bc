"""What `docs/paper` shows, from finished runs of `phaseprune paper`.

    phaseprune paper demo --out runs/paper-demo
    phaseprune paper MODEL --config docs/paper/smollm2.yaml --data-dir DIR --out runs/paper-smollm2
    python benchmarks/paper_docs.py runs/paper-demo runs/paper-smollm2

DIR is made by hub_copies.py, or left out where the hub can be reached. Writes docs/paper/claims.md
(all claims, the models side by side) and a copy of each run's report, and prints the seconds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from phaseprune.replication.page import claims_markdown, paper_copy, write_paper_report
from phaseprune.replication.paper import open_paper

DOCS = Path(__file__).resolve().parents[1] / "docs" / "paper"


def main() -> None:
    """Write the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=DOCS)
    options = parser.parse_args()
    papers = [open_paper(run) for run in options.runs]
    for found in papers:
        write_paper_report(found.path)
        name = found.path.name.removeprefix("paper-")
        (options.out / f"{name}.html").write_text(paper_copy(found.path), encoding="utf-8")
        for task in found.tasks:
            parts = [f"{one} {told['seconds']:.0f}" for one, told in task.experiments.items()]
            whole = sum(told["seconds"] for told in task.experiments.values())
            print(f"{found.model}, {task.name}: {whole:.0f} s: {', '.join(parts)}")
    (options.out / "claims.md").write_text(claims_markdown(*papers), encoding="utf-8")
    print(f"{options.out / 'claims.md'}, and a page of each run beside it")


if __name__ == "__main__":
    main()
