"""Iterative Pruning (arXiv 2605.07271): remove the one block whose removal leaves the best
objective, then look again.
"""  # noqa: D205

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from phaseprune.decision.decisions import Decisions
from phaseprune.decision.dynamics import live_transition
from phaseprune.decision.laco import Mixtures, written
from phaseprune.decoder.merged import merged_blocks
from phaseprune.errors import UserError
from phaseprune.methods.objectives import best, figures
from phaseprune.methods.racing import race_candidates, race_of_step
from phaseprune.progress import Progress, silent
from phaseprune.pruning.step import Search, Step, make_step
from phaseprune.sweep.kept import LastTrace
from phaseprune.sweep.measure import Prepared
from phaseprune.sweep.walk import sweep_scores, trace_scores


def first_step(search: Search, evaluated: Decisions, progress: Progress = silent) -> Step:
    """Step 0, the full model; ``evaluated`` are its decisions on the evaluation questions."""
    calibration = _on_calibration(search, [], progress, "calibration questions, full model")
    if search.by_text:
        raw = trace_scores(
            search.decoder, search.judge.rows, search.judge.needs_vocabulary, output_only=True,
            progress=progress, label="text, full model",
        )  # fmt: skip
        calibration |= search.judge.figures(raw[:, 0])
    guard = search.guard and search.guard.figures(progress=progress, label="full model")
    decisive = _decisive(search, [], progress, "full model: its phases on calibration questions")
    return make_step(
        search, [], None, calibration, evaluated, None, 0, 0.0, guard=guard, decisive=decisive,
    )  # fmt: skip


@dataclass(frozen=True)
class Chosen:
    """The block that goes at a step.

    Attributes:
        block: its original index.
        figures: of the model without it, as far as choosing measured them.
        block_passes: that choosing took.
        seconds: that choosing took.
        race: see ``Step.race``.
        merged: blocks that stay and have taken in some of those that are gone.
    """

    block: int
    figures: dict[str, float]
    block_passes: int
    seconds: float
    race: dict[str, Any] | None = None
    merged: Mixtures = field(default_factory=dict)


#: Chooses the block that goes next: given the last step, the number of the next, and progress.
Choose = Callable[[Step, int, Progress], Chosen]


def by_search(
    search: Search,
    done: int,
    scored: Callable[[int], list[dict[str, Any]]],
    keep: Callable[[list[dict[str, Any]]], None],
) -> Choose:
    """Choose the candidate that leaves the best objective.

    Args:
        search: what to work with.
        done: steps that are finished; racing learns from them.
        scored: gives the candidates of a step that an interrupted run has scored already.
        keep: called with the candidates of each step as soon as they are scored.
    """
    if search.racing:
        for number in range(1, done + 1):
            search.racing.learn(scored(number))

    def choose(latest: Step, number: int, progress: Progress) -> Chosen:
        live = latest.kept
        free = search.candidates(live if latest.decisive is None else latest.decisive)
        candidates = scored(number)
        if len(candidates) != len(free):
            candidates = score_candidates(search, live, free, number, progress)
            keep(candidates)
        race = None
        if search.racing:
            search.racing.learn(candidates)
            race = race_of_step(search.racing, candidates)
        left = [c for c in candidates if c.get("dropped") is None]
        chosen = left[best(search.objective, [c[search.objective] for c in left])]
        return Chosen(chosen["block"], chosen, chosen["block_passes"], chosen["seconds"], race)

    return choose


def next_steps(
    search: Search, steps: list[Step], choose: Choose, progress: Progress = silent
) -> Iterator[Step]:
    """Go on from the given steps until the stop rule ends the search.

    Args:
        search: what to work with.
        steps: the finished steps, the first of them step 0.
        choose: says which block goes.
        progress: told of each block pass.

    Yields:
        Each further step when it is done.
    """
    latest = steps[-1]
    while search.ended(latest) is None:
        number = latest.step + 1
        chosen = choose(latest, number, progress)
        removed = [b for b in range(len(search.decoder.blocks)) if b not in latest.kept]
        removed.append(chosen.block)
        with merged_blocks(search.decoder, chosen.merged):
            calibration = chosen.figures
            if not search.by_questions:
                label = f"step {number}: calibration questions without block {chosen.block}"
                calibration = _on_calibration(search, removed, progress, label) | calibration
            label = f"step {number}: evaluation without block {chosen.block}"
            # Blocks that have taken in others have other weights than at the step before.
            last = LastTrace() if chosen.merged else search.evaluated
            raw = _traced(search, search.evaluation, last, removed, progress, label)
            guard = search.guard and search.guard.figures(
                removed, steps[0].guard, latest.guard, progress,
                f"step {number}: without block {chosen.block}",
            )  # fmt: skip
            decisive = _decisive(
                search, removed, progress,
                f"step {number}: phases on calibration questions without block {chosen.block}",
            )  # fmt: skip
        latest = make_step(
            search,
            removed,
            chosen.block,
            calibration,
            search.evaluation.decide(raw),
            steps[0],
            chosen.block_passes,
            chosen.seconds,
            number,
            chosen.race,
            guard,
            written(chosen.merged) or None,
            decisive,
        )
        yield latest


def score_candidates(
    search: Search, live: list[int], free: list[int], number: int, progress: Progress = silent
) -> list[dict[str, Any]]:
    """One line of ``candidates.jsonl`` for each candidate: the figures without it.

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
        candidates=free,
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


def _decisive(
    search: Search, removed: list[int], progress: Progress, label: str
) -> list[int] | None:
    """Where only these may go, the Decisive blocks of the model without some, by a trace of it."""
    if search.among == "all":
        return None
    prepared = search.calibration
    decisions = prepared.decide(
        _traced(search, prepared, search.calibrated, removed, progress, label)
    )
    kept = [block for block in range(len(search.decoder.blocks)) if block not in removed]
    found = live_transition(decisions, kept, search.seed)
    if not removed and not found.found:
        raise UserError(
            f"--among decisive needs a transition, and the full model has none on the "
            f"{len(prepared.task.questions)} calibration questions: {found.reason}; take more with "
            "--calibration, or leave it out"
        )
    return list(found.decisive_blocks)


def _traced(
    search: Search,
    prepared: Prepared,
    last: LastTrace,
    removed: list[int],
    progress: Progress,
    label: str,
) -> np.ndarray:
    """Raw scores of the model without some blocks at its readouts; ``last`` is of the same rows."""
    return last.then(removed, lambda known: trace_scores(
        search.decoder, prepared.rows, prepared.needs_vocabulary, removed=removed, known=known,
        progress=progress, label=label,
    ))  # fmt: skip


def _on_calibration(
    search: Search, removed: list[int], progress: Progress, label: str
) -> dict[str, float]:
    """All objectives of the model without some blocks on the calibration questions."""
    raw = trace_scores(
        search.decoder, search.calibration.rows, search.calibration.needs_vocabulary,
        removed=removed, output_only=True, progress=progress, label=label,
    )  # fmt: skip
    return figures(search.calibration.decide(raw))
