"""What each experiment of ``paper`` will cost, from counts alone.

A block pass is one run of one block over all rows of a side. With L blocks, R removed ones, V
variances of noise and S draws of it, the experiments take (over the questions of)

========== ============================================================================ ==========
experiment block passes                                                                 kind
========== ============================================================================ ==========
trace      L (all)                                                                      exact
lens       L (calibration) for the fit, L (others) for the trace                        exact
prune      L + sum over steps s of n(n+1)/2, n = L-s+1 live blocks (calibration);       at most
           L + sum of L-s for the traces of all models (evaluation)
similarity L + R(L-R) + R(R-1)/2 (evaluation)                                           at most
perturb    L + VS L(L+1)/2 (probe)                                                      exact
ablate     L^2 for ``mean``, L^2+L+1 for ``repeat``, L^2+L-1 for ``swap`` (probe); of   exact
           ``mean`` L more (calibration)
phasewise  L (calibration); see ``bounds.phasewise_passes`` (evaluation)                at most
heal       of each depth of l blocks and each seed: 2 l (evaluation), 3 l a step and    about
           l an evaluation on the validation split (training)
========== ============================================================================ ==========

``prune`` keeps states from step to step, which saves most where late blocks go; racing saves more,
but may repeat a race in full precision, so its figure is ``about``. (V S + 1) L(L+1)/2, the bound
of ``perturbation.most_passes``, is above what ``perturb`` does: without noise the model is one
stream. A training step is counted as three forwards, forward and backward of weights that are all
trained; adapters need about two. Early stopping saves steps.

What is left out: attention's products of tokens with tokens, noise, statistics, loading, exporting.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from phaseprune.healing.data import VALIDATION_SHARE
from phaseprune.healing.recipe import Recipe
from phaseprune.replication.bounds import ladder_passes, phasewise_passes
from phaseprune.replication.settings import Settings
from phaseprune.replication.sides import Side, Sides
from phaseprune.sweep.branches import ablation_births, noise_births
from phaseprune.sweep.estimate import Rates
from phaseprune.sweep.tuned import EPOCHS, HELD_SHARE, HELD_TOKENS, RIDGES, TOKENS

#: Forwards that a training step is counted as.
TRAINING_FORWARDS = 3


@dataclass(frozen=True)
class Shape:
    """What a cost needs of a model and of how a task is read.

    Attributes:
        blocks: L.
        block_parameters: of a block, on average. All experts of a mixture are among them, so its
            FLOP are a bound.
        width: D.
        vocabulary: rows of the head.
        head_rows: of them that a read of the task needs: the labels, or the vocabulary.
    """

    blocks: int
    block_parameters: float
    width: int
    vocabulary: int
    head_rows: int


@dataclass(frozen=True)
class Experiment:
    """What one experiment takes.

    Attributes:
        name: of ``settings.EXPERIMENTS``.
        kind: whether ``block_passes`` are ``exact``, ``at most`` or ``about`` so many.
        block_passes: runs of one block, each over all rows of its side.
        token_passes: runs of one block on a token: block passes times tokens of their rows.
        reads: positions at which the head is read as the task scores.
        vocabulary_reads: positions at which it is read over the whole vocabulary whatever the
            scoring (fitting a lens, training); a backward pass counts as further ones.
        flop: floating-point operations of the matrix products with weights, two a multiplication
            and addition.
        lens_flop: those among them of a tuned lens's own maps and of their fit.
    """

    name: str
    kind: str
    block_passes: int
    token_passes: int
    reads: int
    vocabulary_reads: int
    flop: float
    lens_flop: float = 0.0

    def seconds(self, rates: Rates, shape: Shape) -> float:
        """By measured rates; a lens's maps as fast as a block, operation for operation."""
        return (
            self.token_passes * rates.token
            + self.reads * rates.read
            + self.vocabulary_reads * rates.vocabulary_read
            + self.lens_flop / (2 * shape.block_parameters) * rates.token
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class _Walk:
    """Block passes over the rows of a side, and how often all of its reads are read."""

    over: Side
    passes: int
    readings: int = 0
    vocabulary_readings: float = 0.0


def costs(settings: Settings, sides: Sides, shape: Shape) -> tuple[Experiment, ...]:
    """The cost of each experiment that is run, in order.

    Args:
        settings: resolved for this number of blocks.
        sides: of the task.
        shape: of the model.
    """
    return tuple(_COSTS[name](settings, sides, shape) for name in settings.experiments)


def _experiment(
    name: str,
    kind: str,
    shape: Shape,
    *walks: _Walk,
    vocabulary_reads: float = 0.0,
    lens_flop: float = 0.0,
) -> Experiment:
    tokens = sum(walk.passes * walk.over.tokens for walk in walks)
    reads = sum(walk.readings * walk.over.reads for walk in walks)
    vocabulary_reads += sum(walk.vocabulary_readings * walk.over.reads for walk in walks)
    head = reads * shape.head_rows + vocabulary_reads * shape.vocabulary
    return Experiment(
        name,
        kind,
        sum(walk.passes for walk in walks),
        round(tokens),
        round(reads),
        round(vocabulary_reads),
        2.0 * tokens * shape.block_parameters + 2.0 * shape.width * head + lens_flop,
        lens_flop,
    )


def _trace(settings: Settings, sides: Sides, shape: Shape) -> Experiment:
    blocks = shape.blocks
    return _experiment("trace", "exact", shape, _Walk(sides.all, blocks, blocks + 1))


def _lens(settings: Settings, sides: Sides, shape: Shape) -> Experiment:
    """T tokens are fitted to and H are held out.

    Over the vocabulary: the targets; of each map H held-out ones at its beginning, for each ridge
    and each epoch, and T forward and backward an epoch. Maps: D^2 products wherever one is used,
    and T and D^2 or D^3 for least squares.
    """
    blocks, width, chosen = shape.blocks, shape.width, sides.calibration
    held = min(HELD_TOKENS, HELD_SHARE * chosen.tokens)
    fitted = min(TOKENS, (1 - HELD_SHARE) * chosen.tokens)
    ridges = len(RIDGES)
    targets = held + EPOCHS * fitted
    of_a_map = held * (1 + ridges + EPOCHS) + 2 * EPOCHS * fitted
    least_squares = 4 * fitted * width**2 + ridges * (2 / 3 + 2) * width**3
    mapped = 2 * width**2 * blocks * (of_a_map + sides.others.reads)
    return _experiment(
        "lens",
        "exact",
        shape,
        _Walk(chosen, blocks),
        _Walk(sides.others, blocks, 2 * (blocks + 1)),
        vocabulary_reads=targets + blocks * of_a_map,
        lens_flop=blocks * least_squares + mapped,
    )


def _prune(settings: Settings, sides: Sides, shape: Shape) -> Experiment:
    """Each model is traced; a trace of l blocks reads l + 1 times."""
    blocks = shape.blocks
    live = [blocks - step for step in range(settings.remove)]
    sweeps = sum(count * (count + 1) // 2 for count in live)
    depths = [blocks, *(count - 1 for count in live)]
    return _experiment(
        "prune",
        "at most" if settings.search == "exact" else "about",
        shape,
        _Walk(sides.calibration, blocks + sweeps, 1 + sum(live)),
        _Walk(sides.evaluation, sum(depths), sum(depths) + len(depths)),
    )


def _similarity(settings: Settings, sides: Sides, shape: Shape) -> Experiment:
    passes = ladder_passes(shape.blocks, settings.remove)
    return _experiment("similarity", "at most", shape, _Walk(sides.evaluation, passes, 1 + passes))


def _perturb(settings: Settings, sides: Sides, shape: Shape) -> Experiment:
    births = noise_births(shape.blocks, settings.noise, settings.noise_seeds, 0)
    readings = shape.blocks + births.streams
    return _experiment("perturb", "exact", shape, _Walk(sides.probe, births.block_passes, readings))


def _ablate(settings: Settings, sides: Sides, shape: Shape) -> Experiment:
    births = ablation_births(settings.ablation, shape.blocks)
    means = shape.blocks if settings.ablation == "mean" else 0
    return _experiment(
        "ablate",
        "exact",
        shape,
        _Walk(sides.calibration, means),
        _Walk(sides.probe, births.block_passes, shape.blocks + births.streams),
    )


def _phasewise(settings: Settings, sides: Sides, shape: Shape) -> Experiment:
    blocks = shape.blocks
    passes, readings = phasewise_passes(blocks, settings.draws, settings.most)
    return _experiment(
        "phasewise",
        "at most",
        shape,
        _Walk(sides.calibration, blocks, blocks + 1),
        _Walk(sides.evaluation, passes, readings),
    )


def _heal(settings: Settings, sides: Sides, shape: Shape) -> Experiment:
    recipe = Recipe(**settings.recipe)
    validation = min(recipe.validation, max(1, int(VALIDATION_SHARE * sides.training.questions)))
    evaluations = 1 + -(-recipe.steps // recipe.between)
    steps = TRAINING_FORWARDS * recipe.steps
    batch, held = sides.training.share(recipe.batch), sides.training.share(validation)
    return _experiment(
        "heal",
        "about",
        shape,
        *_healed(settings, shape.blocks, sides.evaluation, (batch, steps), (held, evaluations)),
    )


def _healed(
    settings: Settings, blocks: int, evaluation: Side, *trained: tuple[Side, int]
) -> Iterator[_Walk]:
    """Of each depth and seed: two traces, and how often the model is run on what."""
    for step in settings.ladder:
        left = blocks - step
        for _ in range(settings.heal_seeds):
            yield _Walk(evaluation, 2 * left, 2 * (left + 1))
            for over, runs in trained:
                yield _Walk(over, runs * left, vocabulary_readings=runs)


_COSTS = {
    "trace": _trace,
    "lens": _lens,
    "prune": _prune,
    "similarity": _similarity,
    "perturb": _perturb,
    "ablate": _ablate,
    "phasewise": _phasewise,
    "heal": _heal,
}
