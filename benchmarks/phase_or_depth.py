"""How often phase-wise pruning says the wrong thing, of models whose blocks cost what is stated.

    python benchmarks/phase_or_depth.py [--samples 300] [--questions 200] [--blocks 14 --readout 8]

Prints the share of samples with each verdict, and how often the intervals of the jump at the
transition hold the true one, where the truth near it is a line and a jump. A sample draws questions
and sets anew (tests/phase_samples.py).
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

VERDICTS = ("agrees", "partly", "disagrees", "undecided")
HELD = ("held", "held_by_widest")


def phase_or_depth(
    name: str,
    samples: int = 300,
    questions: int = 200,
    blocks: int = 14,
    readout: int = 8,
    draws: int = 8,
) -> dict[str, float | str | None]:
    """The verdicts of so many samples of one truth.

    Args:
        name: of ``phase_samples.truths``.
        samples: how many.
        questions: of a sample.
        blocks: of the model.
        readout: its transition.
        draws: sets of each kind and number.

    Returns:
        The share of each verdict; ``right``, the verdict that is true (or None); how often the
        plain difference is significant (``plain``), how often the jump's interval over questions
        (``held``) and the wider one (``held_by_widest``) hold the true jump, or None.
    """
    import phase_samples

    costs, right, jump = phase_samples.truths(blocks, readout)[name]
    seen: Counter[str] = Counter()
    for seed in range(samples):
        if right is None:  # any cost: other blocks in each sample
            costs = np.random.default_rng([seed, 3]).uniform(0.05, 0.3, blocks)
        result = phase_samples.phase_sample(costs, readout, seed, questions, draws)
        fit = result["regression"]["fit"]["jump"]
        widest = result["controlled"]["jump"]["difference_ci"]
        seen[result["verdict"]] += 1
        seen["plain"] += result["pooled"]["significant"]
        if jump is not None:
            seen["held"] += fit["ci"][0] <= jump <= fit["ci"][1]
            seen["held_by_widest"] += widest[0] <= jump <= widest[1]
    shares = {key: seen[key] / samples for key in (*VERDICTS, "plain", *HELD)}
    return shares | {"right": right} | (dict.fromkeys(HELD) if jump is None else {})


def main() -> None:
    import phase_samples

    parser = argparse.ArgumentParser()
    for name, value in (
        ("samples", 300),
        ("questions", 200),
        ("blocks", 14),
        ("readout", 8),
        ("draws", 8),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--only", nargs="*", help="words that a truth's name must have one of")
    options = vars(parser.parse_args())
    only = options.pop("only")
    print(
        f"| cost of a block | {' | '.join(VERDICTS)} | plain difference significant | jump held "
        "over questions | by the wider interval | right |"
    )
    print("|---|" + "---|" * (len(VERDICTS) + 4))
    for name in phase_samples.truths(options["blocks"], options["readout"]):
        if only and not any(word in name for word in only):
            continue
        found = phase_or_depth(name, **options)
        cells = [
            "–" if found[key] is None else f"{100 * found[key]:.1f} %"
            for key in (*VERDICTS, "plain", *HELD)
        ]
        print(f"| {name} | {' | '.join(cells)} | {found['right'] or '–'} |", flush=True)


if __name__ == "__main__":
    main()
