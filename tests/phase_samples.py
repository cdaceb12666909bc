"""Phase-wise pruning of models whose blocks cost what is stated, for tests and benchmarks."""

from types import SimpleNamespace

import numpy as np

from phaseprune.decision.transition import Transition
from phaseprune.probes.phasewise_result import conclude
from phaseprune.probes.phasewise_sets import drawn_sets, kinds_of

#: Share of right decisions that a removed set turns wrong for no reason (and as many back).
CHURN = 0.02
OPTIONS = 4


def transition_at(readout, blocks):
    """A found transition, with so many Silent blocks."""
    return Transition(
        found=True,
        readout=readout,
        ci=(readout, readout),
        silent_blocks=tuple(range(readout)),
        decisive_blocks=tuple(range(readout, blocks)),
    )


def phase_sample(costs, readout, seed, questions=200, draws=8, most=3, accuracy=0.9, protect=()):
    """A sample of questions and sets, and the result.

    A question loses its answer with any one of the removed blocks by that block's cost; fragile
    questions lose it more easily. What is lost is guessed.

    Args:
        costs: ``[L]`` of the blocks, as probabilities.
        readout: the transition.
        seed: of everything.
    """
    rng, costs = np.random.default_rng([seed, 77]), np.asarray(costs, dtype=float)
    kinds = kinds_of(range(readout), range(readout, len(costs)), protect)
    full = rng.random(questions) < accuracy
    fragile = rng.beta(2, 2, size=questions) * 2  # mean 1
    lost_by = rng.random((questions, len(costs))) < np.clip(costs * fragile[:, None], 0, 1)
    guessed = rng.random(questions) < 1 / OPTIONS
    lines = [line((), ["full"], full)]
    for number in range(1, most + 1):
        for blocks, names in drawn_sets(kinds, number, draws, seed).items():
            flips = np.where(full, CHURN, CHURN * accuracy / (1 - accuracy))
            right = full ^ (rng.random(questions) < flips)
            right = np.where(lost_by[:, blocks].any(axis=1), guessed, right)
            lines.append(line(blocks, names, right))
    rows = SimpleNamespace(task=SimpleNamespace(options=np.full(questions, OPTIONS)))
    return conclude(lines, rows, transition_at(readout, len(costs)), draws, seed, protect)


def line(blocks, kinds, right):
    """As in ``candidates.jsonl``."""
    return {
        "removed_blocks": len(blocks),
        "kinds": kinds,
        "blocks": list(blocks),
        "correct": "".join("01"[int(one)] for one in right),
        "accuracy": float(right.mean()),
        "decision_margin": 0.0,
        "block_passes": 0,
        "naive_block_passes": 0,
    }


def truths(blocks, readout):
    """What blocks may cost, and what is then to be said.

    Returns:
        Name -> costs, right verdict, true jump (None where the near blocks follow no line).
    """
    depth, block = np.linspace(0, 1, blocks), np.arange(blocks)
    rng = np.random.default_rng(5)
    first = np.where(block < 2, 0.8, 0.0)
    return {
        "nothing": (np.zeros(blocks), "undecided", 0.0),
        "a straight line of depth": (0.4 * (1 - depth), "partly", 0.0),
        "a curve of depth": (0.6 * np.exp(-depth / 0.25), "partly", None),
        "the first two blocks alone": (first, "partly", 0.0),
        "the first two, and a line": (np.maximum(first, 0.3 * (1 - depth)), "partly", 0.0),
        "a jump at the transition": (np.where(block < readout, 0.3, 0.0), "agrees", 0.3),
        "a jump, the first two dearer": (
            np.where(block < readout, np.maximum(first, 0.35), 0.0),
            "agrees",
            0.35,
        ),
        "a jump the other way": (np.where(block < readout, 0.0, 0.3), "disagrees", -0.3),
        "any cost, whatever the block": (rng.uniform(0.05, 0.3, blocks), None, 0.0),
    }
