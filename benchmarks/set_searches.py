"""How near searches come to the best of all sets of blocks, on the bundled model.

    python benchmarks/set_searches.py [--remove 6,8,9,10,11] [--questions 64] [--evaluation 300]

Every set of so many blocks is scored on the calibration questions, so the best is known; then each
method chooses on the same questions. Accuracy is on others. Some minutes on one core.
"""

from __future__ import annotations

import argparse
from itertools import combinations

import numpy as np

from phaseprune import load_model, load_task, rank_blocks
from phaseprune.methods.judge import Judge, question_judge
from phaseprune.questions.split import split
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.walk import set_scores

METHODS = ["decision_margin", "beam", "pairwise", "evolutionary", "block_influence", "magnitude"]
#: Sets that are walked together.
TOGETHER = 64


def figures(decoder, judge: Judge, sets, name: str) -> list[float]:
    """A figure of the model without each set, in order."""
    found = []
    for at in range(0, len(sets), TOGETHER):
        sweep = set_scores(decoder, judge.rows, judge.needs_vocabulary, sets[at : at + TOGETHER])
        found += [judge.figures(scores)[name] for scores in sweep.scores]
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--remove", default="6,8,9,10,11")
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--evaluation", type=int, default=300)
    options = parser.parse_args()
    decoder, task = load_model("demo"), load_task("demo")
    chosen_on, others = split(task, options.questions, options.evaluation, 0)
    judge, reported = (
        question_judge(decoder, prepare(decoder, part)) for part in (chosen_on, others)
    )
    print(
        "| removed | method | DM on calibration | best of all less that | sets that are better "
        "| block passes | accuracy on others |"
    )
    print("|---|---|---|---|---|---|---|")
    for number in map(int, options.remove.split(",")):
        sets = list(combinations(range(len(decoder.blocks)), number))
        margins = np.array(figures(decoder, judge, sets, "decision_margin"))
        rankings = [rank_blocks(decoder, chosen_on, method=name, remove=number) for name in METHODS]
        rows = [("best of all", sets[int(margins.argmax())], "–")]
        rows += [(one.method, tuple(sorted(one.order)), one.block_passes) for one in rankings]
        accuracies = figures(decoder, reported, [chosen for _, chosen, _ in rows], "accuracy")
        for (name, chosen, passes), accuracy in zip(rows, accuracies, strict=True):
            margin = margins[sets.index(chosen)]
            better = int((margins > margin + 1e-6).sum())
            short = margins.max() - margin
            print(
                f"| {number} | {name} | {margin:+.3f} | {short:.3f} | {better} of {len(sets):,} "
                f"| {passes} | {accuracy:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
