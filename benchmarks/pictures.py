"""Makes the pictures of the README from a run of the demo.

phaseprune demo && python benchmarks/pictures.py [RUN]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from phaseprune.report.figures import decision_margin_figure, pruning_figure

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"


def main(run: Path) -> None:
    trace = json.loads((run / "trace.json").read_text())
    steps = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    result = json.loads((run / "manifest.json").read_text())["result"]
    for name, figure in {
        "demo-margin.png": decision_margin_figure(trace),
        "demo-pruning.png": pruning_figure(steps, result, trace["chance"]),
    }.items():
        figure.savefig(IMAGES / name, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo"))
