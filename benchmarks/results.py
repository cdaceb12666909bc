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
from collections.abc import Callable, Sequence
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
GUARDS = "guards.json"


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
    from phaseprune.sweep.trace import trace

    trace(decoder, task, out=out, progress=progress, **options)


def prune(decoder, task, out, progress, **options):
    import phaseprune

    phaseprune.prune(decoder, task, out=out, progress=progress, **options)


def guards(decoder, task, out, progress, cuts):
    """What plain text is worth with the last blocks cut: the task plays no part in it."""
    from phaseprune.decision.guards import short_figures
    from phaseprune.probes.guards import Guard, open_guard

    opened = open_guard(decoder, Guard(windows=48))
    blocks = len(decoder.blocks)
    full = opened.figures(progress=progress, label="full model")
    found = {"0": full} | {
        str(cut): opened.figures(
            range(blocks - cut, blocks), full, progress=progress, label=f"last {cut} cut"
        )
        for cut in cuts
    }
    short = {cut: short_figures(each) for cut, each in found.items()}
    out.mkdir(parents=True, exist_ok=True)
    (out / GUARDS).write_text(json.dumps({"text": opened.identity, "cut": short}, indent=1) + "\n")


def phasewise(decoder, task, out, progress, **options):
    import phaseprune

    phaseprune.phasewise(decoder, task, out=out, progress=progress, **options)


LETTERS, TEXTS = {"scoring": "letter"}, {"scoring": "text"}
QWEN = "qwen-1.5b-arc-easy"
#: In the order in which they are run. The parts of one model on one task are named as those of
#: ``phaseprune paper``, so that its judges read them.
RUNS = {
    f"{QWEN}/trace": Run("qwen-1.5b", ARC_EASY, LETTERS | {"limit": 400}, trace),
    f"{QWEN}/guards": Run(
        "qwen-1.5b", ARC_EASY, LETTERS | {"limit": 400}, partial(guards, cuts=(1, 2, 4, 5, 6, 7))
    ),
    f"{QWEN}/prune": Run(
        "qwen-1.5b",
        ARC_EASY,
        LETTERS | {"limit": 400},
        partial(prune, remove=16, calibration=40, evaluation=240),
    ),
    "qwen-1.5b-arc-challenge/trace": Run(
        "qwen-1.5b", ARC_CHALLENGE, LETTERS | {"limit": 300}, trace
    ),
    "qwen-1.5b-commonsense/trace": Run("qwen-1.5b", COMMONSENSE, LETTERS | {"limit": 300}, trace),
    f"{QWEN}-permuted/trace": Run(
        "qwen-1.5b", ARC_EASY, LETTERS | {"limit": 300, "permute": True}, trace
    ),
    f"{QWEN}/phasewise": Run(
        "qwen-1.5b",
        ARC_EASY,
        LETTERS | {"limit": 400},
        partial(phasewise, draws=6, most=4, calibration=64, evaluation=160),
    ),
    f"{QWEN}-digits/trace": Run(
        "qwen-1.5b", ARC_EASY, LETTERS | {"limit": 300, "labels": "1"}, trace
    ),
    f"{QWEN}-texts/trace": Run("qwen-1.5b", ARC_EASY, TEXTS | {"limit": 300}, trace),
    f"{QWEN}/lens": Run(
        "qwen-1.5b",
        ARC_EASY,
        LETTERS | {"limit": 400},
        partial(trace, lens="tuned", calibration=100),
    ),
    f"{QWEN}-debiased/prune": Run(
        "qwen-1.5b",
        ARC_EASY,
        LETTERS | {"limit": 400},
        partial(prune, remove=16, calibration=40, evaluation=240, objective="debiased_margin"),
    ),
    "qwen-0.5b-arc-easy/trace": Run("qwen-0.5b", ARC_EASY, LETTERS | {"limit": 300}, trace),
    "qwen-0.5b-arc-easy-texts/trace": Run("qwen-0.5b", ARC_EASY, TEXTS | {"limit": 300}, trace),
    "gemma-270m-arc-easy-texts/trace": Run("gemma-270m", ARC_EASY, TEXTS | {"limit": 300}, trace),
}


def run_all(options) -> None:
    """Run what is not finished, model by model in the order of RUNS."""
    import phaseprune

    wanted = {name: RUNS[name] for name in options.only or RUNS}
    for model, (title, file) in MODELS.items():
        own = {
            name: one
            for name, one in wanted.items()
            if one.model == model and not finished(options.out / name)
        }
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
    done = path.exists() and json.loads(path.read_text())["status"] == "finished"
    return done or (run / GUARDS).exists()


class Told:
    """Progress as a line every half minute."""

    def __init__(self, name: str):
        self.name, self.began, self.last = name, time.perf_counter(), 0.0

    def __call__(self, label: str, done: float, total: float) -> None:
        now = time.perf_counter()
        if now - self.last > 30:
            self.last = now
            print(
                f"  {self.name} {now - self.began:.0f} s: {label} {done:.0f} of {total:.0f}",
                flush=True,
            )


def write_page(options) -> None:
    """Write docs/results/tables.md and its figures from the runs that are there."""
    from phaseprune.replication.claims import CLAIMS
    from phaseprune.replication.results import read_results
    from phaseprune.report import figures

    found = {name: options.out / name for name in RUNS if (options.out / name).is_dir()}
    lines = ["<!-- made by `python benchmarks/results.py page` -->", "", *traces_table(found), ""]
    lines += [*cut_table(found), *guards_table(options.out / f"{QWEN}/guards"), ""]
    folder = options.out / QWEN
    results = read_results(folder)
    lines += [
        "## Claims, on Qwen2.5-Coder-1.5B-Instruct, ARC-Easy by letters",
        "",
        "| the paper says | verdict | figures |",
        "|---|---|---|",
    ]
    for claim in CLAIMS:
        if claim.experiment in results:
            finding = claim.find(results)
            lines.append(f"| {claim.title} | {finding.verdict} | {finding.text} |")
    DOCS.mkdir(parents=True, exist_ok=True)
    (DOCS / "tables.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    drawn = {}
    if "trace" in results:
        drawn["margin"] = figures.decision_margin_figure(results["trace"])
        drawn["options"] = figures.option_frequency_figure(results["trace"])
    if "prune" in results:
        drawn["pruning"] = figures.pruning_figure(
            results["prune"]["steps"], results["prune"]["result"]
        )
    if "phasewise" in results:
        drawn["phases"] = figures.phasewise_figure(results["phasewise"]["result"])
    for name, figure in drawn.items():
        figure.savefig(DOCS / f"{QWEN}-{name}.png", dpi=130, bbox_inches="tight")
    print(f"{DOCS / 'tables.md'} and {len(drawn)} figures")


def traces_table(found: dict[str, Path]) -> list[str]:
    """Where each model decides, as it answers and with the label prior taken off."""
    from phaseprune.report.words import signed

    lines = [
        "## Where the models decide",
        "",
        "| model and task | questions | accuracy % (95 % CI) | transition as it answers | debiased "
        "accuracy % | debiased transition | DM, Silent to Decisive level | sharpness (95 % CI) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, run in found.items():
        if not name.endswith(("/trace", "/lens")) or not (run / "trace.json").exists():
            continue
        told = json.loads((run / "trace.json").read_text())
        debiased, own = told.get("debiased"), told["transition"]
        raw = told["raw_transition"] if debiased else own
        sharp = "–"
        levels = sharp
        if own["found"]:
            low, high = own["sharpness_ci"]
            sharp = f"{own['sharpness']:.2f} ({low:.2f} to {high:.2f})"
            levels = f"{signed(own['silent_level'])} to {signed(own['decisive_level'])}"
        cells = [
            name.removesuffix("/trace"),
            str(told["questions"]),
            _accuracy(told["accuracy"]),
            _where(raw),
            _accuracy(debiased["accuracy"]) if debiased else "–",
            _where(own) if debiased else "–",
            levels,
            sharp,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _accuracy(of: dict) -> str:
    return _percent(of["mean"][-1], (of["ci_low"][-1], of["ci_high"][-1]), digits=1)


def _percent(value: float, interval: Sequence[float], digits: int = 0) -> str:
    from phaseprune.report.words import percent

    low, high = (percent(end, 0) for end in interval)
    return f"{percent(value, digits)} ({low} to {high})"


def _where(transition: dict) -> str:
    if not transition["found"]:
        return "none: " + transition["reason"].split(":")[0]
    low, high = transition["ci"]
    return f"readout {transition['readout']} ({low} to {high}), {transition['shape']}"


def cut_table(found: dict[str, Path], most: int = 10) -> list[str]:
    """What is left of traces where all blocks behind a readout are cut: that readout is the output.

    Retained with Fieller's interval, raw and (of letters) debiased, and the share of the most
    frequent answer.
    """
    import numpy as np
    import pyarrow.parquet as pq

    from phaseprune.decision.collapse import collapse_kind, retained
    from phaseprune.report.words import percent

    lines = ["## All blocks behind a readout removed", ""]
    for name, run in found.items():
        path = run / "scores.parquet"
        if not name.endswith("/trace") or not path.exists():
            continue
        table = pq.read_table(path)
        names = [n for n in ("score", "debiased_score") if n in table.column_names]
        columns = {n: table[n].to_numpy() for n in ("readout", "option", "gold", *names)}
        starts = (columns["readout"] == 0) & (columns["option"] == 0)
        question = np.cumsum(starts) - 1
        shape = (question.max() + 1, columns["readout"].max() + 1, columns["option"].max() + 1)
        arrays = {}
        for column in ("gold", *names):
            values = np.full(shape, -np.inf)
            values[question, columns["readout"], columns["option"]] = columns[column]
            arrays[column] = values
        gold = arrays["gold"][:, 0].argmax(axis=-1)
        chances = 1 / np.isfinite(arrays["score"][:, 0]).sum(axis=-1)
        decided = {n: arrays[n].argmax(axis=-1) for n in names}
        right = {n: decided[n] == gold[:, None] for n in decided}
        last = shape[1] - 1
        heads = ["removed", "accuracy %", "retained % (95 % CI)", "most frequent answer %"]
        if len(names) == 2:
            heads += ["debiased accuracy %", "debiased retained % (95 % CI)", "collapse"]
        lines += [
            f"**{name.removesuffix('/trace')}** ({shape[0]} questions)",
            "",
            f"| {' | '.join(heads)} |",
            "|---" * len(heads) + "|",
        ]
        for cut in range(most + 1):
            at = last - cut
            sides = [retained(right[n][:, at], right[n][:, -1], chances) for n in right]
            told = ["–" if one.value is None else _percent(one.value, one.ci) for one in sides]
            top = np.bincount(decided["score"][:, at]).max() / shape[0]
            accuracy = [percent(right[n][:, at].mean(), 0) for n in right]
            blocks = "none" if not cut else f"{at} to {last - 1}" if cut > 1 else str(at)
            cells = [blocks, accuracy[0], told[0], percent(top, 0)]
            if len(names) == 2:
                cells += [accuracy[1], told[1], collapse_kind(*sides) or ""]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return lines


def guards_table(run: Path) -> list[str]:
    """What plain text is worth with the last blocks cut."""
    from phaseprune.report.words import percent

    if not (run / GUARDS).exists():
        return []
    told = json.loads((run / GUARDS).read_text())
    text = told["text"]
    lines = [
        "## Plain text with the last blocks removed",
        "",
        f"{QWEN.removesuffix('-arc-easy')}: {text['guard_windows']} windows of "
        f"{text['guard_window_tokens']} tokens of the bundled text; {text['guard_prompts']} "
        f"greedy continuations of {text['guard_tokens']} tokens.",
        "",
        "| removed | loss, nats a token (95 % CI) | above the full model's % (95 % CI) | of the "
        "way to guessing % | tokens as the full model's % (95 % CI) | repeated pieces % |",
        "|---|---|---|---|---|---|",
    ]
    full = told["cut"]["0"]
    for cut, one in told["cut"].items():
        way = (one["text_loss"] - full["text_loss"]) / (one["guessing"] - full["text_loss"])
        low, high = one["text_loss_ci"]
        cells = [
            "none" if cut == "0" else f"the last {cut}",
            f"{one['text_loss']:.2f} ({low:.2f} to {high:.2f})",
            _percent(one["text_loss_rise"], one["text_loss_rise_ci"]),
            percent(way, 0),
            _percent(one["agreement"], one["agreement_ci"]),
            percent(one["repetition"], 0),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


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
