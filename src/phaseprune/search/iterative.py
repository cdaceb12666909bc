"""Iterative Pruning (arXiv 2605.07271): remove the one block whose removal leaves the best
objective, then look again.
"""  # noqa: D205

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from phaseprune.decision.collapse import retained
from phaseprune.decision.dynamics import step_dynamics
from phaseprune.decision.intervals import bootstrap_mean, wilson
from phaseprune.decision.trace import Decisions
from phaseprune.decision.transition import Transition
from phaseprune.decoder.decoder import Decoder
from phaseprune.progress import Progress, silent
from phaseprune.search.judge import Judge
from phaseprune.search.objectives import OBJECTIVES, best, figures
from phaseprune.search.racing import Racing, race_candidates, race_of_step
from phaseprune.search.stopping import Stop
from phaseprune.sweep.kept import Kept
from phaseprune.sweep.measure import Prepared
from phaseprune.sweep.walk import sweep_scores, trace_scores


@dataclass(frozen=True)
class Step:
    """One pruning step, as a line of ``steps.jsonl``; step 0 is the full model.

    ``block_passes`` and ``seconds`` are those of the search alone. ``evaluation["correct"]`` has a
    1 or 0 for each evaluation question, so that steps can be compared question by question.
    ``race``, of racing alone: its options and confidence, the calibration ``questions`` (or
    ``windows`` of text) that the step's objective is over, the candidates ``left`` at the end, the
    block passes saved, and ``products`` and ``drift`` (``racing.race_candidates``).
    ``race``, of racing alone: its options and confidence, the calibration ``questions`` that the
    step's objective is over, the candidates ``left`` at the end, and the block passes saved.
    ``dynamics`` has the transition of this model and its Option Frequency against the gold, before
    any correction for the number of steps.
    """

    step: int
    removed: int | None
    kept: list[int]
    objective: float
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

    def to_dict(self) -> dict[str, Any]:
        """The line of ``steps.jsonl``."""
        return asdict(self)

    @property
    def correct(self) -> np.ndarray:
        """``[Q]`` whether each evaluation question is decided right."""
        return np.array([flag == "1" for flag in self.evaluation["correct"]])


@dataclass(frozen=True)
class Search:
    """What a search works with.

    Attributes:
        decoder: the model.
        calibration: questions to choose by.
        evaluation: disjoint questions to report on.
        objective: a name in ``objectives.SIGNS``.
        stop: when to end.
        transition: of the full model on the evaluation questions.
        seed: of the intervals.
        judge: what candidates are judged on: the calibration questions or plain text.
        kept: states that a step hands on to the next.
        racing: how candidates race; None scores all of them on all that the judge has.
    """

    decoder: Decoder
    calibration: Prepared
    evaluation: Prepared
    objective: str
    stop: Stop
    transition: Transition
    seed: int
    judge: Judge
    kept: Kept
    racing: Racing | None = None

    @property
    def by_text(self) -> bool:
        """Whether candidates are judged by other figures than those of questions."""
        return self.objective not in OBJECTIVES


def first_step(search: Search, evaluated: Decisions, progress: Progress = silent) -> Step:
    """Step 0, the full model; ``evaluated`` are its decisions on the evaluation questions."""
    calibration = _on_calibration(search, [], progress, "calibration questions, full model")
    if search.by_text:
        raw = trace_scores(
            search.decoder, search.judge.rows, search.judge.needs_vocabulary, output_only=True,
            progress=progress, label="text, full model",
        )  # fmt: skip
        calibration |= search.judge.figures(raw[:, 0])
    return _step(search, [], None, calibration, evaluated, evaluated.correct[:, -1], 0, 0.0)


def next_steps(
    search: Search,
    steps: list[Step],
    scored: Callable[[int], list[dict[str, Any]]],
    keep: Callable[[list[dict[str, Any]]], None],
    progress: Progress = silent,
) -> Iterator[Step]:
    """Go on from the given steps until the stop rule ends the search.

    Args:
        search: what to work with.
        steps: the finished steps, the first of them step 0.
        scored: gives the candidates of a step that an interrupted run has scored already.
        keep: called with the candidates of each step as soon as they are scored.
        progress: told of each block pass.

    Yields:
        Each further step when it is done.
    """
    full_correct, latest = steps[0].correct, steps[-1]
    if search.racing:
        for number in range(1, latest.step + 1):
            search.racing.learn(scored(number))
    while search.stop.reason(latest.step, latest.retained) is None:
        number = latest.step + 1
        candidates = scored(number)
        if len(candidates) != len(latest.kept):
            candidates = score_candidates(search, latest.kept, number, progress)
            keep(candidates)
        race = None
        if search.racing:
            search.racing.learn(candidates)
            race = race_of_step(search.racing, candidates)
        left = [c for c in candidates if c.get("dropped") is None]
        chosen = left[best(search.objective, [c[search.objective] for c in left])]
        removed = [b for b in range(len(search.decoder.blocks)) if b not in latest.kept]
        removed.append(chosen["block"])
        if search.by_text:
            label = f"step {number}: calibration questions without block {chosen['block']}"
            chosen = _on_calibration(search, removed, progress, label) | chosen
        raw = trace_scores(
            search.decoder,
            search.evaluation.rows,
            search.evaluation.needs_vocabulary,
            removed=removed,
            progress=progress,
            label=f"step {number}: evaluation without block {chosen['block']}",
        )
        latest = _step(
            search,
            removed,
            chosen["block"],
            chosen,
            search.evaluation.decide(raw),
            full_correct,
            chosen["block_passes"],
            chosen["seconds"],
            number,
            race,
        )
        yield latest


def score_candidates(
    search: Search, live: list[int], number: int, progress: Progress = silent
) -> list[dict[str, Any]]:
    """One line of ``candidates.jsonl`` for each live block: the figures without it.

    ``block_passes`` and ``seconds`` are those of the whole step's sweep.
    """
    if search.racing:
        return race_candidates(search.decoder, search.racing, live, number, progress)
    began = time.perf_counter()
    sweep = sweep_scores(
        search.decoder,
        search.judge.rows,
        search.judge.needs_vocabulary,
        live,
        kept=search.kept,
        progress=progress,
        label=f"step {number}: sweep over {len(live)} blocks",
    )
    seconds = time.perf_counter() - began

    return [
        {"step": number, "block": block}
        | search.judge.figures(scores)
        | {"block_passes": sweep.block_passes, "seconds": round(seconds, 3)}
        for block, scores in zip(sweep.blocks, sweep.scores, strict=True)
    ]


def _on_calibration(
    search: Search, removed: list[int], progress: Progress, label: str
) -> dict[str, float]:
    """All objectives of the model without some blocks on the calibration questions."""
    raw = trace_scores(
        search.decoder, search.calibration.rows, search.calibration.needs_vocabulary,
        removed=removed, output_only=True, progress=progress, label=label,
    )  # fmt: skip
    return figures(search.calibration.decide(raw))


def _step(
    search: Search,
    removed: list[int],
    block: int | None,
    calibration: dict[str, float],
    evaluated: Decisions,
    full_correct: np.ndarray,
    block_passes: int,
    seconds: float,
    number: int = 0,
    race: dict[str, Any] | None = None,
) -> Step:
    correct, margins = evaluated.correct[:, -1], evaluated.margins[:, -1]
    left = retained(correct, full_correct, evaluated.chances, search.seed)
    kept = [b for b in range(len(search.decoder.blocks)) if b not in removed]
    return Step(
        step=number,
        removed=block,
        kept=kept,
        objective=calibration[search.objective],
        calibration={name: calibration[name] for name in ("accuracy", "decision_margin", "loss")},
        evaluation={
            "accuracy": float(correct.mean()),
            "ci": wilson(correct.sum(), len(correct)).tolist(),
            "decision_margin": float(margins.mean()),
            "decision_margin_ci": bootstrap_mean(margins, search.seed).tolist(),
            "correct": "".join("1" if right else "0" for right in correct),
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
        dynamics=step_dynamics(
            evaluated.margins,
            evaluated.decided[:, -1],
            evaluated.gold,
            float(evaluated.chances.mean()),
            kept,
            search.seed,
            search.stop.most + 1,
        ),  # fmt: skip
    )
