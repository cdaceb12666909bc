"""How often phase-wise pruning says the wrong thing, of models whose blocks cost what is stated.

    python benchmarks/phase_or_depth.py [--samples 300] [--questions 200] [--blocks 14 --readout 8]

Prints the share of samples with each verdict, and how often the interval of the jump at the
transition holds the true one, where the truth is a line and a jump. A sample draws questions and
sets anew (tests/phase_samples.py).
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

VERDICTS = ("agrees", "partly", "disagrees", "undecided")


def phase_or_depth(
    samples: int = 300, questions: int = 200, blocks: int = 14, readout: int = 8, draws: int = 8,
    truths=None,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """The verdicts of so many samples of each truth.

    Args:
        samples: of each truth.
        questions: of a sample.
        blocks: of the model.
        readout: its transition.
        draws: sets of each kind and number.
        truths: names of ``phase_samples.truths``; by default all.

    Returns:
        Name -> share of each verdict; ``right`` is the verdict that is true, or None, and ``plain``
        the share of samples whose plain difference is significant.
    """
    import phase_samples

    found = {}
    for name, (costs, right) in phase_samples.truths(blocks, readout).items():
        if truths is not None and name not in truths:
            continue
        seen: Counter[str] = Counter()
        for seed in range(samples):
            if right is None:  # any cost: other blocks in each sample
                costs = np.random.default_rng([seed, 3]).uniform(0.05, 0.3, blocks)
            result = phase_samples.phase_sample(costs, readout, seed, questions, draws)
            seen[result["verdict"]] += 1
            seen["plain"] += result["pooled"]["significant"]
        found[name] = {key: seen[key] / samples for key in (*VERDICTS, "plain")} | {"right": right}
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, value in (("samples", 300), ("questions", 200), ("blocks", 14), ("readout", 8),
                        ("draws", 8)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    options = vars(parser.parse_args())
    print(f"| cost of a block | {' | '.join(VERDICTS)} | plain difference significant | right |")
    print("|---|" + "---|" * (len(VERDICTS) + 2))
    for name, shares in phase_or_depth(**options).items():
        cells = [f"{100 * shares[key]:.0f} %" for key in (*VERDICTS, "plain")]
        print(f"| {name} | {' | '.join(cells)} | {shares['right'] or '–'} |", flush=True)


if __name__ == "__main__":
    main()
