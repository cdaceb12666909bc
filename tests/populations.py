"""Made-up populations of questions with known truth: what statistics are held against."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import optimize

from phaseprune.decision.curve import step_gain
from phaseprune.decision.decisions import Decisions

READOUTS = 31


@dataclass(frozen=True)
class Population:
    """Questions whose option scores at a readout are noise, a lead of the gold, and label prior.

    score = scale * (noise + lead on the gold option + prior of the label), with noise N(0, 1) that
    follows that of the readout before. A question has its lead from its onset on.

    Attributes:
        lead: ``[R]`` of the gold option.
        onset: readouts between which the onset of each question is drawn (uniformly, both ends
            among them); None: every question has the lead of each readout.
        scale: ``[R]`` of the scores; 1 by default.
        prior: ``[R, K]`` of the labels; 0 by default.
        correlation: of the noise between neighbouring readouts; 1: it stays the same.
        options: k.
        golds: ``[K]`` shares of the golds; by default all the same. Those of texts that are all in
            one place are exchangeable.
        letters: whether the label prior is to be taken off.
    """

    lead: np.ndarray
    onset: tuple[int, int] | None = None
    scale: np.ndarray | None = None
    prior: np.ndarray | None = None
    correlation: float = 0.9
    options: int = 4
    golds: tuple[float, ...] | None = None
    letters: bool = True

    def sample(self, questions: int, rng: np.random.Generator) -> Decisions:
        """Decisions on some questions at all readouts."""
        readouts, k = len(self.lead), self.options
        noise = rng.normal(size=(questions, readouts, k))
        keep, new = self.correlation, np.sqrt(1 - self.correlation**2)
        for r in range(1, readouts):
            noise[:, r] = keep * noise[:, r - 1] + new * noise[:, r]
        gold = rng.choice(k, size=questions, p=self.golds)
        lead = np.broadcast_to(self.lead, (questions, readouts)).copy()
        if self.onset is not None:
            onset = rng.integers(self.onset[0], self.onset[1] + 1, size=questions)
            lead[np.arange(readouts) < onset[:, None]] = 0
        scores = noise + lead[..., None] * (np.arange(k) == gold[:, None])[:, None]
        if self.prior is not None:
            scores = scores + self.prior
        if self.scale is not None:
            scores = scores * self.scale[:, None]
        one_place = not self.letters and self.golds is not None and max(self.golds) == 1
        return Decisions(scores, gold, np.full(questions, k), None, self.letters, one_place)

    @cached_property
    def curve(self) -> np.ndarray:
        """``[R]`` mean (debiased) DM of the population, from very many questions."""
        big = self.sample(20_000, np.random.default_rng(12345))
        return big.debiased.margins.mean(axis=0)

    @property
    def split(self) -> int:
        """The best split of the population's curve: what an interval must cover."""
        return int(np.argmax(step_gain(self.curve))) + 1


def step(at: int, high: float, low: float = 0.0, readouts: int = READOUTS) -> np.ndarray:
    """A lead that is ``low`` before readout ``at`` and ``high`` from it on."""
    return np.where(np.arange(readouts) < at, low, high)


def one_readout(at: int, factor: float, readouts: int = READOUTS) -> np.ndarray:
    """A scale of 1 but at one readout."""
    scale = np.ones(readouts)
    scale[at] = factor
    return scale


def margin_of_lead(lead: float, options: int = 4, questions: int = 20000) -> float:
    """Mean DM where the gold leads by so much."""
    rng = np.random.default_rng(54321)
    scores = rng.normal(size=(questions, 1, options))
    scores[:, :, 0] += lead
    zeros = np.zeros(questions, int)
    return float(Decisions(scores, zeros, np.full(questions, options)).margins.mean())


def lead_of_margin(margin: float, options: int = 4) -> float:
    """The lead at which the mean DM is so much."""
    return float(optimize.brentq(lambda lead: margin_of_lead(lead, options) - margin, -2, 30))


def straight_leads(low: float, high: float, readouts: int = READOUTS) -> np.ndarray:
    """Leads whose mean DM is a straight line from ``low`` to ``high``."""
    return np.array([lead_of_margin(margin) for margin in np.linspace(low, high, readouts)])


def lost_one_by_one(
    questions: int, steps: int, full: float, rng: np.random.Generator, at: int | None = None
) -> list[np.ndarray]:
    """Right decisions over pruning steps, the first of the full model.

    A question that the full model knows is lost at a step of its own, drawn from all of them, so
    that accuracy falls in a straight line; or all are lost at step ``at``. What is not known is
    guessed among four options, anew at each step.
    """
    knows = rng.random(questions) < (full - 0.25) / 0.75
    lost = rng.integers(1, steps + 1, size=questions) if at is None else np.full(questions, at)
    return [
        np.where(knows & (step < lost), True, rng.random(questions) < 0.25)
        for step in range(steps + 1)
    ]


def churning(
    questions: int, steps: int, accuracy: float, churn: float, rng: np.random.Generator
) -> list[np.ndarray]:
    """Right decisions over steps that change at random and lose nothing on average."""
    row = rng.random(questions) < accuracy
    rows = [row]
    for _ in range(steps):
        again = rng.random(questions) < churn
        row = np.where(again, rng.random(questions) < accuracy, row)
        rows.append(row)
    return rows
