"""The evidence of docs/results.md: runs on real models, and the page's figures and tables of them.

    python benchmarks/results.py run --models DIR --data DIR [--out RUNS] [--only NAME …]
    python benchmarks/results.py page [--out RUNS]      (RUNS: docs/results/runs)

DIR of the models has the GGUF files named in MODELS; that of the data, JSON lines of questions
(id, question, choices, answer) named as in RUNS. Every run is a run directory of phaseprune's and
goes on where it was; a model is loaded once for all of its runs. `page` needs neither.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs" / "results"
MODELS = {
    "qwen-1.5b": ("Qwen2.5-Coder-1.5B-Instruct", "qwen2.5-coder-1.5b-instruct.Q4_K_M.gguf"),
    "qwen-0.5b": ("Qwen2.5-Coder-0.5B-Instruct", "qwen2.5-coder-0.5b-instruct.Q4_K_M.gguf"),
    "gemma-270m": ("Gemma 3 270M", "gemma-3-270m.Q4_K_M.gguf"),
}
ARC_EASY, ARC_CHALLENGE = "arc_easy.test.jsonl", "arc_challenge.test.jsonl"
COMMONSENSE = "commonsense_qa.validation.jsonl"


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        model: a key of MODELS.
        questions: a file of the data.
        task: options of ``load_task``.
        do: what is run, given the decoder, the task and the run directory.
    """

    model: str
    questions: str
    task: dict
    do: Callable


def trace(decoder, task, out, progress, **options):
    from phaseprune.sweep.recorded import trace_run

    trace_run(decoder, task, out, progress=progress, **options)


def prune(decoder, task, out, progress, guards=False, **options):
    import phaseprune
    from phaseprune.probes.guards import Guard

    guard = Guard() if guards else None
    phaseprune.prune(decoder, task, out=out, progress=progress, guard=guard, **options)


def phasewise(decoder, task, out, progress, **options):
    import phaseprune

    phaseprune.phasewise(decoder, task, out=out, progress=progress, **options)


LETTERS, TEXTS = {"scoring": "letter"}, {"scoring": "text"}
RUNS = {
    "arc-easy": Run("qwen-1.5b", ARC_EASY, LETTERS | {"limit": 400}, trace),
    "arc-easy-tail": Run(
        "qwen-1.5b", ARC_EASY, LETTERS | {"limit": 400},
        partial(prune, method="tail", remove=10, calibration=40, evaluation=300, guards=True),
    ),
    "arc-easy-prune": Run(
        "qwen-1.5b", ARC_EASY, LETTERS | {"limit": 400},
        partial(prune, remove=16, calibration=40, evaluation=300),
    ),
    "arc-challenge": Run("qwen-1.5b", ARC_CHALLENGE, LETTERS | {"limit": 300}, trace),
    "commonsense": Run("qwen-1.5b", COMMONSENSE, LETTERS | {"limit": 300}, trace),
    "arc-easy-permute": Run(
        "qwen-1.5b", ARC_EASY, LETTERS | {"limit": 300, "permute": True}, trace
    ),
    "arc-easy-phasewise": Run(
        "qwen-1.5b", ARC_EASY, LETTERS | {"limit": 400},
        partial(phasewise, draws=6, most=4, calibration=64, evaluation=160),
    ),
    "arc-easy-digits": Run(
        "qwen-1.5b", ARC_EASY, LETTERS | {"limit": 300, "labels": "1"}, trace
    ),
    "arc-easy-texts": Run("qwen-1.5b", ARC_EASY, TEXTS | {"limit": 300}, trace),
    "arc-easy-lens": Run(
        "qwen-1.5b", ARC_EASY, LETTERS | {"limit": 400},
        partial(trace, lens="tuned", calibration=100),
    ),
    "arc-easy-prune-debiased": Run(
        "qwen-1.5b", ARC_EASY, LETTERS | {"limit": 400},
        partial(prune, remove=16, calibration=40, evaluation=300, objective="debiased_margin"),
    ),
    "0.5b-arc-easy": Run("qwen-0.5b", ARC_EASY, LETTERS | {"limit": 300}, trace),
    "0.5b-arc-easy-texts": Run("qwen-0.5b", ARC_EASY, TEXTS | {"limit": 300}, trace),
    "gemma-arc-easy-texts": Run("gemma-270m", ARC_EASY, TEXTS | {"limit": 300}, trace),
}  # fmt: skip


def run_all(options) -> None:
    """Run what is not finished, model by model in the order of RUNS."""
    import phaseprune

    wanted = {name: RUNS[name] for name in options.only or RUNS}
    for model, (title, file) in MODELS.items():
        own = {
            name: one for name, one in wanted.items()
            if one.model == model and not finished(options.out / name)
        }  # fmt: skip
        if not own:
            continue
        began = time.perf_counter()
        decoder = phaseprune.load_model(str(options.models / file))
        print(f"{title}: loaded in {time.perf_counter() - began:.0f} s", flush=True)
        for name, one in own.items():
            began = time.perf_counter()
            task = phaseprune.load_task(str(options.data / one.questions), **one.task)
            one.do(decoder, task, options.out / name, Told(name))
            print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)


def finished(run: Path) -> bool:
    """Whether a run directory says that it is."""
    path = run / "manifest.json"
    return path.exists() and json.loads(path.read_text())["status"] == "finished"


class Told:
    """Progress as a line every half minute."""

    def __init__(self, name: str):
        self.name, self.began, self.last = name, time.perf_counter(), 0.0

    def __call__(self, label: str, done: float, total: float) -> None:
        now = time.perf_counter()
        if now - self.last > 30:
            self.last = now
            print(f"  {self.name} {now - self.began:.0f} s: {label} {done:.0f} of {total:.0f}",
                  flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run")
    run.add_argument("--models", type=Path, required=True)
    run.add_argument("--data", type=Path, required=True)
    run.add_argument("--only", nargs="*", choices=list(RUNS))
    run.set_defaults(do=run_all)
    page = commands.add_parser("page")
    page.set_defaults(do=write_page)
    for each in (run, page):
        each.add_argument("--out", type=Path, default=DOCS / "runs")
    options = parser.parse_args()
    options.do(options)


if __name__ == "__main__":
    main()
