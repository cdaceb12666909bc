"""The transition: where the Silent Phase ends and the Decisive Phase begins.

A transition says that *the right answer emerges*: the output depends on the gold, and both the
Decision Margin and the decisions themselves rise by more than they could if the golds meant
nothing. docs/statistics.md has the reasons, benchmarks/calibration.py how often it is wrong.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from phaseprune.decision.curve import CHUNK, SIGNIFICANCE, Shape, fit_shape, rise_p_value, step_gain
from phaseprune.decision.decisions import Decisions
from phaseprune.decision.intervals import percentiles

#: Permutations of the golds; also random signs of the test of the decisions.
PERMUTATIONS = 1999
#: A transition explains at least this share of DM's squared deviation over the readouts: with less,
#: most of what DM does is something else.
LEAST_R2 = 0.5


@dataclass(frozen=True)
class Transition:
    """Where a model makes up its mind, or the reason why that cannot be said.

    ``readout`` is the first readout of the Decisive Phase; silent blocks are ``0 … readout-1``,
    decisive blocks ``readout … L-1`` (original indices). All but ``found``, ``reason`` and
    ``p_value`` are None (the lists empty) where no transition is found.

    Attributes:
        found: whether there is one.
        readout: first readout of the Decisive Phase: the best step's.
        ci: its 95 % interval.
        silent_blocks: original indices,
        decisive_blocks: and the others.
        silent_level: mean DM over the Silent readouts,
        decisive_level: and over the Decisive ones.
        sharpness: the rise of DM at ``readout`` over the difference of the levels.
        sharpness_ci: its 95 % interval (bootstrap over questions, the readout held).
        r2: of the step, as ``Shape.r2``.
        p_value: the largest of its tests.
        reason: why none is found.
        questions: on how many questions it was found, where these are others than those that the
            figures beside it are of.
        shape: what shape the rise has: ``step``, ``gradual``, ``several`` or ``unclear``
            (``curve.Shape``).
        rise: the last readout before the rise and the first behind it; of several steps, theirs.
        rise_ci: 95 % intervals of these.
        shape_r2: share of DM's squared deviation that the shape explains.
        informed: whether the output's decisions depend on the gold; what the test needs to find
            anything.
    """

    found: bool
    readout: int | None = None
    ci: tuple[int, int] | None = None
    silent_blocks: tuple[int, ...] = ()
    decisive_blocks: tuple[int, ...] = ()
    silent_level: float | None = None
    decisive_level: float | None = None
    sharpness: float | None = None
    sharpness_ci: tuple[float, float] | None = None
    r2: float | None = None
    p_value: float | None = None
    reason: str | None = None
    questions: int | None = None
    shape: str | None = None
    rise: tuple[int, ...] | None = None
    rise_ci: tuple[tuple[int, int], ...] | None = None
    shape_r2: float | None = None
    informed: bool | None = None

    def phase(self, block: int) -> str | None:
        """``"silent"`` or ``"decisive"`` for an original block index; None without a transition."""
        if not self.found:
            return None
        return "silent" if block in self.silent_blocks else "decisive"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        told = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }
        return told | {"rise_ci": self.rise_ci and [list(bounds) for bounds in self.rise_ci]}


def permuted_golds(
    gold: np.ndarray,
    options: np.ndarray,
    count: int,
    rng: np.random.Generator,
    exchangeable: bool = False,
) -> np.ndarray:
    """``[count, Q]`` golds as they might be if they meant nothing.

    They are permuted among the questions with as many options, so that a preference for a place (a
    label, or yes and no), which golds may share, is in the null. Golds that are all in one place
    have no other permutation. Where the place means nothing and no text is preferred for being
    right often (``Task.exchangeable``), each of a question's k options is as likely the gold under
    the null, whatever place the file puts it in; so it is drawn, with probability 1/k.

    Args:
        gold: ``[Q]``.
        options: ``[Q]`` number of options k.
        count: how many times.
        rng: what draws.
        exchangeable: draw them, and do not permute them.
    """
    if exchangeable:
        return rng.integers(np.asarray(options), size=(count, len(options)))
    golds = np.tile(np.asarray(gold), (count, 1))
    for k in np.unique(options):
        own = np.flatnonzero(np.asarray(options) == k)
        golds[:, own] = rng.permuted(golds[:, own], axis=1)
    return golds


def gold_p_values(
    decisions: Decisions, output: Decisions, seed: int, permutations: int = PERMUTATIONS
) -> tuple[float, float]:
    """P-values of "nothing depends on the gold", from permuted golds.

    One permutation serves all readouts, so that what does not depend on the gold (the scale of the
    scores, the label prior, the correlation between readouts) is in the null distribution too.

    Args:
        decisions: ``[Q, R]`` those in which a rise is sought.
        output: whose decisions at the last readout must be informed.
        seed: of the permutations.
        permutations: how many; a p-value is at least 1 / (1 + permutations).

    Returns:
        Of "the output is right no more often than with other golds", and of "DM rises by no larger
        step than with other golds".
    """
    table = decisions.margins_of_options
    questions, readouts, options = table.shape
    by_option = np.ascontiguousarray(table.transpose(0, 2, 1)).reshape(-1, readouts)
    decided = output.decided[:, -1]
    right = int((decided == output.gold).sum())
    rise = float(step_gain(decisions.margins.mean(axis=0)).max())
    rng = np.random.default_rng(seed)
    as_right = as_large = 0
    for start in range(0, permutations, CHUNK):
        count = min(CHUNK, permutations - start)
        golds = permuted_golds(
            decisions.gold, decisions.options, count, rng, decisions.exchangeable
        )
        as_right += int(((golds == decided).sum(axis=1) >= right).sum())
        chosen = np.zeros((count, questions * options), dtype=np.float32)
        places = np.arange(questions) * options + golds
        np.put_along_axis(chosen, places, 1.0, axis=1)
        curves = chosen @ by_option.astype(np.float32) / questions
        as_large += int((step_gain(curves).max(axis=-1) >= rise - 1e-6).sum())
    return (1 + as_right) / (1 + permutations), (1 + as_large) / (1 + permutations)


def find_transition(
    decisions: Decisions,
    seed: int,
    permutations: int = PERMUTATIONS,
    output: Decisions | None = None,
) -> Transition:
    """Test whether the right answer emerges, fit the step, and bound it.

    Args:
        decisions: ``[Q, R]`` of one model at its readouts: debiased ones for letters.
        seed: of permutations, sign flips and the bootstrap.
        permutations: of the golds, and as many sign flips.
        output: the decisions as the model makes them, where ``decisions`` are debiased.

    Returns:
        A found transition if, each with p < 0.01, (1) the output is informed: right more often than
        with other golds (``permuted_golds``); (2) DM rises by a larger step than with those; (3)
        the decisions are right more often behind some readout than before it (sign-flip test),
        which a change of the scores' scale does not make; and (4) the rise explains at least half
        of what DM does over the readouts. Else one that names the reason.
    """
    output = decisions if output is None else output
    correct = output.correct[:, -1]
    others = "golds drawn at random" if decisions.exchangeable else "the golds permuted"
    informed, rising = gold_p_values(decisions, output, seed, permutations)
    if informed >= SIGNIFICANCE:
        answers = np.bincount(output.decided[:, -1], minlength=2) / len(correct)
        often = ""
        if answers.max() > 0.5:
            often = f"; {answers.max():.0%} of the answers are option {int(answers.argmax()) + 1}"
        return Transition(
            found=False,
            informed=False,
            p_value=informed,
            reason=f"the final decisions do not depend on the gold: accuracy {correct.mean():.3f} "
            f"on {len(correct)} questions, and no less with {others} (p = "
            f"{informed:.2g}; chance is {output.chances.mean():.3f}{often})",
        )
    if rising >= SIGNIFICANCE:
        return Transition(
            found=False,
            informed=True,
            p_value=rising,
            reason="the Decision Margin does not rise by a larger step over the readouts than with "
            f"{others} (p = {rising:.2g})",
        )
    emerging = rise_p_value(decisions.correct.astype(float), seed, permutations)
    p_value = max(informed, rising, emerging)
    if emerging >= SIGNIFICANCE:
        return Transition(
            found=False,
            informed=True,
            p_value=p_value,
            reason="the decisions are not significantly more often right behind any readout than "
            f"before it (sign-flip test, p = {emerging:.2g}), though the Decision Margin rises",
        )
    shape = fit_shape(decisions.margins, seed)
    if shape.after <= shape.before:
        return Transition(
            found=False,
            informed=True,
            p_value=p_value,
            reason="the Decision Margin is nowhere higher behind a readout than before it",
        )
    if shape.shape_r2 < LEAST_R2:
        return Transition(
            found=False,
            informed=True,
            p_value=p_value,
            reason=f"the largest rise of the Decision Margin, from {shape.before:+.2f} to "
            f"{shape.after:+.2f} at readout {shape.split}, explains {shape.shape_r2:.0%} of what "
            f"it does over the readouts; a transition explains {LEAST_R2:.0%} or more",
        )
    blocks = decisions.margins.shape[1] - 1
    sharpness, sharpness_ci = _sharpness(decisions.margins.mean(axis=0), shape)
    return Transition(
        found=True,
        informed=True,
        readout=shape.split,
        ci=shape.ci,
        silent_blocks=tuple(range(shape.split)),
        decisive_blocks=tuple(range(shape.split, blocks)),
        silent_level=shape.before,
        decisive_level=shape.after,
        sharpness=sharpness,
        sharpness_ci=sharpness_ci,
        r2=shape.r2,
        p_value=p_value,
        shape=shape.kind,
        rise=shape.rise,
        rise_ci=shape.rise_ci,
        shape_r2=shape.shape_r2,
    )


def _sharpness(mean: np.ndarray, shape: Shape) -> tuple[float, tuple[float, float]]:
    """The rise at a split over the difference of the levels, and its bootstrap interval."""
    curves, split = np.vstack([mean, shape.drawn]), shape.split
    rises = curves[:, split] - curves[:, split - 1]
    levels = curves[:, split:].mean(axis=1) - curves[:, :split].mean(axis=1)
    # A found step rises, so levels differ; a resample in which they do not has no ratio.
    ratios = rises / np.where(levels > 0, levels, np.nan)
    low, high = percentiles(ratios[1:][np.isfinite(ratios[1:])])
    return float(ratios[0]), (float(low), float(high))
