"""How often the 95 % interval of the transition holds the true one, by kind of curve and noise.

    python benchmarks/coverage.py [--simulations 500] [--seed 0]

Synthetic questions (tests/steps.py); samples are drawn until so many have a transition, as only
these have an interval. Prints how often the estimate itself is right, how it varies, the mean
width of the interval (readouts between its ends) and how often it is a single readout.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

#: The trace of a toy trained for this project, that rises in two stages (design notes).
TWO_STAGES = np.array([-0.26, -0.49, -0.48, -0.36, -0.35, -0.23, -0.16, 0.09, 0.28, 0.35, 0.34,
                       0.35, 0.35, 0.72, 0.74])  # fmt: skip


def regimes():
    from steps import Regime, slope, step

    return {
        "sharp, obvious: rise 0.6": Regime(200, step(31, 20, -0.2, 0.4), 2, 0.9),
        "sharp, noisy: rise 0.20": Regime(64, step(31, 20, -0.1, 0.1), 2, 0.8),
        "sharp, noisiest: rise 0.18": Regime(48, step(31, 20, -0.1, 0.08), 1, 0.9),
        "sharp, noisier: rise 0.20, margins near the ends": Regime(
            48, step(31, 20, -0.1, 0.1), 1, 0.8
        ),
        "sharp, short: 14 blocks": Regime(40, step(15, 8, -0.15, 0.1), 1, 0.8),
        "sharp, late": Regime(96, step(31, 27, -0.1, 0.15), 2, 0.8),
        "blurred over about 8 readouts": Regime(100, slope(31, 18, -0.2, 0.3, 2), 2, 0.9),
        "the same, 400 questions": Regime(400, slope(31, 18, -0.2, 0.3, 2), 2, 0.9),
        "blurred over 4, late, noisy": Regime(100, slope(31, 26, -0.1, 0.2, 1), 2, 0.9),
        "two stages": Regime(100, TWO_STAGES, 2, 0.8),
        "no step: over 16 readouts": Regime(64, slope(31, 14, -0.1, 0.3, 4), 1, 0.8),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--simulations", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from steps import coverage

    print("| curve | questions | with a transition | coverage | exact | sd | width | one readout |")
    print("|---|---|---|---|---|---|---|---|")
    for name, regime in regimes().items():
        got = coverage(regime, options.simulations, options.seed)
        cells = (f"{options.simulations / got.samples:.2f}", f"{got.covered:.3f}",
                 f"{got.exact:.2f}", f"{got.spread:.2f}", f"{got.width:.1f}",
                 f"{got.one_readout:.2f}")  # fmt: skip
        print(f"| {name} | {regime.questions} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
