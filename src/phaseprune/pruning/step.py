"""What a pruning search works with, and the record of one of its steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from phaseprune.decision.collapse import collapse_kind, retained
from phaseprune.decision.decisions import Decisions, mean_prior, read_right, written_right
from phaseprune.decision.dynamics import step_dynamics
from phaseprune.decision.intervals import bootstrap_mean, wilson
from phaseprune.decision.transition import Transition
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.patterns import Pattern
from phaseprune.methods.judge import Judge
from phaseprune.methods.objectives import OBJECTIVES
from phaseprune.methods.racing import Racing
from phaseprune.probes.guards import TextGuard
from phaseprune.pruning.stopping import Stop
from phaseprune.sweep.kept import Kept, LastTrace
from phaseprune.sweep.measure import Prepared


@dataclass(frozen=True)
class Step:
    """One pruning step, as a line of ``steps.jsonl``; step 0 is the full model.

    ``block_passes`` and ``seconds`` are those of the search alone. ``evaluation["correct"]`` has a
    1 or 0 for each evaluation question, so that steps can be compared question by question.
    ``objective`` is None where blocks are ranked at once; the cost of that is the first step's.
    ``race``, of racing alone: its options and confidence, the calibration ``questions`` (or
    ``windows`` of text) that the step's objective is over, the candidates ``left`` at the end, the
    block passes saved, and ``products`` and ``drift`` (``racing.race_candidates``).
    ``dynamics`` has the transition of this model and its Option Frequency against the gold, before
    any correction for the number of steps. ``guard`` has the figures beyond questions
    (``decision.guards.guard_figures``), where they were asked for. ``merged`` says of blocks that
    took others in what their weights are a sum of (``decision.laco.Mixtures``). Where halves of
    blocks are removed, ``removed`` and ``kept`` name these, as ``7.attention`` (``decoder.items``).
    ``decisive``, where only Decisive blocks may go: those of this model on the calibration
    questions. Of letters there are the figures with the label prior taken off as well:
    ``evaluation["debiased"]``, ``retained_debiased`` with its interval, and by readout.
    ``collapse`` names a collapse (``decision.collapse.collapse_kind``), and ``label_prior`` is what
    to take off at the output: number of options -> a number for each label.
    """

    step: int
    removed: int | str | None
    kept: list[int] | list[str]
    objective: float | None
    calibration: dict[str, float]
    evaluation: dict[str, Any]
    retained: float | None
    retained_ci: list[float] | None
    collapsed: bool
    phase: str | None
    decision_margin_by_readout: list[float]
    option_frequency_by_readout: list[list[float]]
    block_passes: int
    seconds: float
    race: dict[str, Any] | None = None
    dynamics: dict[str, Any] | None = None
    guard: dict[str, Any] | None = None
    merged: dict[str, dict[str, int]] | None = None
    decisive: list[int] | None = None
    retained_debiased: float | None = None
    retained_debiased_ci: list[float] | None = None
    collapse: str | None = None
    debiased_margin_by_readout: list[float] | None = None
    debiased_option_frequency_by_readout: list[list[float]] | None = None
    label_prior: dict[str, list[float]] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The line of ``steps.jsonl``."""
        return asdict(self)

    @property
    def correct(self) -> np.ndarray:
        """``[Q]`` whether each evaluation question is decided right."""
        return read_right(self.evaluation["correct"])

    @property
    def correct_debiased(self) -> np.ndarray | None:
        """``[Q]`` the same with the label prior taken off; None for texts."""
        debiased = self.evaluation.get("debiased")
        return None if debiased is None else read_right(debiased["correct"])

    @property
    def text_loss_rise(self) -> float | None:
        """Of the guards, as a share of the full model's loss; None without guards."""
        return self.guard and self.guard["text_loss_rise"]


def output_figures(decisions: Decisions, seed: int) -> dict[str, Any]:
    """Accuracy and DM at the output with their intervals, and which questions are right."""
    correct, margins = decisions.correct[:, -1], decisions.margins[:, -1]
    return {
        "accuracy": float(correct.mean()),
        "ci": wilson(correct.sum(), len(correct)).tolist(),
        "decision_margin": float(margins.mean()),
        "decision_margin_ci": bootstrap_mean(margins, seed).tolist(),
        "correct": written_right(correct),
    }


@dataclass(frozen=True)
class Search:
    """What a search works with.

    Attributes:
        decoder: the model.
        calibration: questions to choose by.
        evaluation: disjoint questions to report on.
        objective: a name in ``objectives.SIGNS``; None where no candidates are judged.
        stop: when to end.
        transition: of the full model on the evaluation questions.
        seed: of the intervals.
        judge: what candidates are judged on: the calibration questions or plain text.
        kept: states that a step hands on to the next.
        racing: how candidates race; None scores all of them on all that the judge has.
        guard: what each step is looked at by beyond questions; None for nothing.
        protect: blocks that are never removed.
        among: ``all`` others may go, or the ``decisive`` ones of the model as it is.
        pattern: of the blocks' kinds, that the chosen model must follow; None for any.
        evaluated: the last step's trace on the evaluation questions.
        calibrated: and on the calibration questions, where steps are traced on them.
    """

    decoder: Decoder
    calibration: Prepared
    evaluation: Prepared
    objective: str | None
    stop: Stop
    transition: Transition
    seed: int
    judge: Judge
    kept: Kept
    racing: Racing | None = None
    guard: TextGuard | None = None
    protect: frozenset[int] = frozenset()
    among: str = "all"
    pattern: Pattern | None = None
    evaluated: LastTrace = field(default_factory=LastTrace)
    calibrated: LastTrace = field(default_factory=LastTrace)

    @property
    def by_questions(self) -> bool:
        """Whether candidates are judged by figures of questions."""
        return self.objective in OBJECTIVES

    @property
    def by_text(self) -> bool:
        """Whether candidates are judged by other figures."""
        return self.objective is not None and not self.by_questions

    def candidates(self, live: Sequence[int]) -> list[int]:
        """The live blocks that may be removed."""
        free = [block for block in live if block not in self.protect]
        if self.pattern is None:
            return free
        left = self.stop.most - len(self.decoder.blocks) + len(live)
        return self.pattern.may_go(live, free, left, self.protect)

    def may_be_chosen(self, step: Step) -> bool:
        """Whether a search may end with the model of a step."""
        whole = self.pattern is None or self.pattern.is_kept(step.kept)
        return whole and not self.breaks(step)

    def ended(self, step: Step) -> str | None:
        """Why the search ends with a step; None to go on."""
        reason = self.stop.reason(step.step, step.retained, step.text_loss_rise)
        if reason is None and step.decisive is not None and not self.candidates(step.decisive):
            return "no Decisive block is left that may go, by the calibration questions"
        if reason is None and self.pattern is not None and not self.candidates(step.kept):
            return "no block is left that may go and keep the pattern of the blocks"
        return reason

    def breaks(self, step: Step) -> bool:
        """Whether a step has lost more than must be kept."""
        return self.stop.broken_by(step.retained, step.text_loss_rise) is not None


def make_step(
    search: Search,
    removed: list[int],
    block: int | None,
    calibration: dict[str, float],
    evaluated: Decisions,
    first: Step | None,
    block_passes: int,
    seconds: float,
    number: int = 0,
    race: dict[str, Any] | None = None,
    guard: dict[str, Any] | None = None,
    merged: dict[str, dict[str, int]] | None = None,
    decisive: list[int] | None = None,
) -> Step:
    """The line of a step from what was measured of its model.

    Args:
        search: what it was measured with.
        removed: all blocks removed so far.
        block: the last of them; None for the full model.
        calibration: all objectives on the calibration questions.
        evaluated: decisions on the evaluation questions.
        first: step 0; None where this is it.
        block_passes: of the search.
        seconds: of the search.
        number: of the step.
        race: what racing says of it.
        guard: what guards say of it.
        merged: see ``Step``.
        decisive: see ``Step``.
    """
    correct, debiased = evaluated.correct[:, -1], evaluated.debiased
    left = retained(correct, first.correct if first else correct, evaluated.chances)
    left_debiased, by_labels = None, {}
    if evaluated.letters:
        right = debiased.correct[:, -1]
        full = first.correct_debiased if first else right
        left_debiased = retained(right, right if full is None else full, evaluated.chances)
        by_labels = {
            "retained_debiased": left_debiased.value,
            "retained_debiased_ci": list(left_debiased.ci) if left_debiased.ci else None,
            "debiased_margin_by_readout": debiased.margins.mean(axis=0).tolist(),
            "debiased_option_frequency_by_readout": debiased.option_frequency().tolist(),
            "label_prior": {
                str(k): prior.tolist()
                for k, prior in mean_prior(evaluated.scores[:, -1:], evaluated.options).items()
            },
        }
    kept = [b for b in range(len(search.decoder.blocks)) if b not in removed]
    return Step(
        step=number,
        removed=block,
        kept=kept,
        objective=None if search.objective is None else calibration[search.objective],
        calibration={name: calibration[name] for name in OBJECTIVES if name in calibration},
        evaluation={
            **output_figures(evaluated, search.seed),
            **({"debiased": output_figures(debiased, search.seed)} if evaluated.letters else {}),
        },
        retained=left.value,
        retained_ci=list(left.ci) if left.ci else None,
        collapsed=left.collapsed,
        phase=None if block is None else search.transition.phase(block),
        decision_margin_by_readout=evaluated.margins.mean(axis=0).tolist(),
        option_frequency_by_readout=evaluated.option_frequency().tolist(),
        block_passes=block_passes,
        seconds=seconds,
        race=race,
        dynamics=step_dynamics(evaluated, kept, search.seed, search.stop.most + 1),
        guard=guard,
        merged=merged,
        decisive=decisive,
        collapse=collapse_kind(left, left_debiased),
        **by_labels,
    )
