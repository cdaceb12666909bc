"""Removing any one block of the bundled model, by phase, and Iterative Pruning to the end.

    python benchmarks/demo_phases.py

Prints the tables of the README. All figures are on questions held out of the training; single
removals are measured on all of them, Iterative Pruning as in `phaseprune demo`.
"""

from __future__ import annotations

import numpy as np

from phaseprune import load_model, load_task, prune, trace
from phaseprune.cli.demo import CALIBRATION, EVALUATION
from phaseprune.decision.collapse import retained
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.walk import sweep_scores


def main() -> None:
    decoder, task = load_model("demo"), load_task("demo")
    full = trace(decoder, task)
    transition = full.transition
    print(f"full model: accuracy {full.accuracy.mean[-1]:.3f} on {len(task.questions)} questions")
    print(f"transition at readout {transition.readout}, 95 % interval {transition.ci}\n")
    prepared = prepare(decoder, task)
    sweep = sweep_scores(
        decoder, prepared.rows, prepared.needs_vocabulary, range(len(decoder.blocks))
    )
    print("| removed block | phase | accuracy | retained (95 % interval) |")
    print("|---|---|---|---|")
    by_phase: dict[str | None, list[float]] = {}
    for block, scores in zip(sweep.blocks, sweep.scores, strict=True):
        correct = prepared.decide(scores[:, None]).correct[:, -1]
        left = retained(correct, full.decisions.correct[:, -1], 1 / task.options)
        phase = transition.phase(block)
        by_phase.setdefault(phase, []).append(left.value)
        print(
            f"| {block} | {phase} | {correct.mean():.3f} | {left.value:.2f} "
            f"({left.ci[0]:.2f} to {left.ci[1]:.2f}) |"
        )
    print()
    for phase, values in by_phase.items():
        print(f"{phase}: mean retained {np.mean(values):.2f}, lowest {min(values):.2f}")
    pruning = prune(
        decoder,
        task,
        remove=len(decoder.blocks) - 1,
        calibration=CALIBRATION,
        evaluation=EVALUATION,
    )
    print("\n| step | removed block | phase | accuracy | retained (95 % interval) | collapsed |")
    print("|---|---|---|---|---|---|")
    for step in pruning.steps:
        low, high = step.retained_ci
        print(
            f"| {step.step} | {'–' if step.removed is None else step.removed} | "
            f"{step.phase or '–'} | {step.evaluation['accuracy']:.3f} | {step.retained:.2f} "
            f"({low:.2f} to {high:.2f}) | {'yes' if step.collapsed else 'no'} |"
        )
    print(f"\nfitted fall: {pruning.result['cliff']}")


if __name__ == "__main__":
    main()
