"""What each method measures, and the order that comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from phaseprune.decision import rankings
from phaseprune.decision.laco import Merge, gone
from phaseprune.decision.rankings import greedy_order
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.weight_scores import magnitudes, taylor_scores
from phaseprune.methods import laco
from phaseprune.methods.beam import Path, beam_search
from phaseprune.methods.costs import WIDTH
from phaseprune.methods.evolution import evolve, streams_of
from phaseprune.methods.judge import Judge, question_judge, text_judge
from phaseprune.methods.pairwise import measure_pairs
from phaseprune.methods.plain_text import PlainText
from phaseprune.methods.plan import budget_of, order_of
from phaseprune.methods.registry import Method
from phaseprune.progress import Progress
from phaseprune.questions.question import Task
from phaseprune.sweep.changes import (
    Changes,
    Sequences,
    block_changes,
    task_sequences,
    window_sequences,
)
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.residuals import take_residuals
from phaseprune.sweep.walk import sweep_scores

#: What the searches over sets judge by; more is better.
JUDGED_BY = "decision_margin"


@dataclass(frozen=True)
class Work:
    """What a measure works with; ``number`` blocks of the ``candidates`` are to go."""

    decoder: Decoder
    method: Method
    task: Task | None
    text: PlainText | None
    candidates: tuple[int, ...]
    number: int
    seed: int
    progress: Progress

    def sequences(self) -> Sequences:
        """What hidden states are taken of."""
        if self.text is not None:
            return window_sequences(self.decoder, self.text.windows)
        return task_sequences(self.decoder, self.task)

    def judge(self, streams: int | None = None) -> Judge:
        """What candidates are judged on; ``streams`` as of ``prepare``."""
        if self.text is not None:
            return text_judge(self.decoder, self.text.windows, self.text.rows)
        prepared = prepare(self.decoder, self.task, streams=streams)
        return question_judge(self.decoder, prepared, streams)

    def without(self) -> np.ndarray:
        """``[L]`` without any score."""
        return np.full(len(self.decoder.blocks), np.nan)


class Found(NamedTuple):
    """What a measure comes to; the fields are those of ``rank.Ranking``."""

    order: tuple[int, ...]
    scores: np.ndarray
    block_passes: int
    by_number: tuple[tuple[int, ...], ...] | None = None
    merges: tuple[Merge, ...] | None = None
    budget: dict[str, Any] | None = None


def _changes(work: Work) -> Changes:
    return block_changes(work.decoder, work.sequences(), seed=work.seed, progress=work.progress)


def _influence(work: Work) -> Found:
    found = _changes(work)
    order = rankings.least_first(found.influence, work.candidates)
    return Found(order, found.influence, found.block_passes)


def _relative(work: Work) -> Found:
    found = _changes(work)
    order = rankings.least_first(found.relative, work.candidates)
    return Found(order, found.relative, found.block_passes)


def _cka(work: Work) -> Found:
    found = _changes(work)
    scores = 1 - found.cka
    return Found(rankings.least_first(scores, work.candidates), scores, found.block_passes)


def _influence_again(work: Work) -> Found:
    sequences, scores, passes = work.sequences(), work.without(), 0
    order: list[int] = []
    for step in range(1, work.number + 1):
        found = block_changes(
            work.decoder,
            sequences,
            removed=order,
            seed=work.seed,
            progress=work.progress,
            label=f"step {step}: hidden states",
        )
        left = [block for block in work.candidates if block not in order]
        chosen = rankings.least_first(found.influence, left)[0]
        scores[chosen] = found.influence[chosen]
        passes += found.block_passes
        order.append(chosen)
    return Found(tuple(order), scores, passes)


def _window(work: Work) -> Found:
    found = _changes(work)
    scores = rankings.window_scores(found.angles, work.number, work.candidates)
    return Found(rankings.least_window(scores, work.number), scores, found.block_passes)


def _perplexity(work: Work) -> Found:
    judge, scores = work.judge(), work.without()
    sweep = sweep_scores(
        work.decoder,
        judge.rows,
        judge.needs_vocabulary,
        list(range(len(work.decoder.blocks))),
        candidates=work.candidates,
        progress=work.progress,
    )
    for block, raw in zip(sweep.blocks, sweep.scores, strict=True):
        scores[block] = np.exp(judge.figures(raw)["text_loss"])
    return Found(rankings.least_first(scores, work.candidates), scores, sweep.block_passes)


def _paths(work: Work, objective: str, width: int) -> tuple[list[Path], Found]:
    best, passes = beam_search(
        work.decoder,
        work.judge(),
        objective,
        work.candidates,
        work.number,
        width,
        progress=work.progress,
    )
    scores = work.without()
    scores[list(best[-1].order)] = best[-1].values
    return best, Found(best[-1].order, scores, passes)


def _greedy(work: Work) -> Found:
    return _paths(work, work.method.objective, 1)[1]


def _beam(work: Work) -> Found:
    best, found = _paths(work, JUDGED_BY, WIDTH)
    return found._replace(by_number=tuple(path.order for path in best))


def _pairwise(work: Work) -> Found:
    surrogate, passes = measure_pairs(
        work.decoder,
        work.judge(),
        JUDGED_BY,
        work.candidates,
        pairs=work.number > 1,
        progress=work.progress,
    )
    return Found(*greedy_order(surrogate, work.candidates, work.number), passes)


def _evolution(work: Work) -> Found:
    judge, scores = work.judge(streams_of(len(work.decoder.blocks))), work.without()
    sweep = sweep_scores(
        work.decoder,
        judge.rows,
        judge.needs_vocabulary,
        list(range(len(work.decoder.blocks))),
        candidates=work.candidates,
        progress=work.progress,
        label="without each block",
    )
    for block, raw in zip(sweep.blocks, sweep.scores, strict=True):
        scores[block] = judge.figures(raw)[JUDGED_BY]
    order = rankings.least_first(-scores, work.candidates)
    chosen, passes = order[: work.number], sweep.block_passes
    if 1 < work.number < len(work.candidates):
        chosen, _, spent = evolve(
            work.decoder,
            judge,
            JUDGED_BY,
            chosen,
            work.candidates,
            work.seed,
            progress=work.progress,
        )
        passes += round(spent)
    return Found(tuple(block for block in order if block in chosen), scores, passes)


def _merges(work: Work) -> Found:
    windows = work.text.windows if work.text is not None else None
    samples = laco.sample_tokens(work.decoder, work.task, windows)
    protect = frozenset(range(len(work.decoder.blocks))) - frozenset(work.candidates)
    _, merges, passes = laco.find_merges(
        work.decoder, samples, work.number, protect, progress=work.progress
    )
    scores = work.without()
    for merge in merges:
        scores[list(merge.blocks)] = merge.similarity
    share = sum(map(len, samples)) / work.sequences().rows.tokens
    return Found(gone(merges), scores, ceil(passes * share), merges=merges)


def _taylor(work: Work) -> Found:
    scores = taylor_scores(work.decoder, work.text.windows, work.progress)
    passes = 3 * len(work.decoder.blocks)
    return Found(rankings.least_first(scores, work.candidates), scores, passes)


def _magnitude(work: Work) -> Found:
    scores = magnitudes(work.decoder, work.progress)
    return Found(rankings.least_first(scores, work.candidates), scores, 0)


def _planned(work: Work) -> Found:
    scores = work.without()
    prepared = prepare(work.decoder, work.task, streams=1)
    found = take_residuals(work.decoder, prepared, seed=work.seed, progress=work.progress)
    order, costs = order_of(found, work.candidates, work.number, work.progress)
    scores[list(order)] = costs
    budget = budget_of(found, order, work.seed)
    return Found(order, scores, found.changes.block_passes, budget=budget)


def _last_first(work: Work) -> Found:
    return Found(rankings.last_first(work.candidates), work.without(), 0)


def _first_first(work: Work) -> Found:
    return Found(rankings.first_first(work.candidates), work.without(), 0)


def _random(work: Work) -> Found:
    return Found(rankings.at_random(work.candidates, work.seed), work.without(), 0)


#: By the ``measure`` of a method.
MEASURES = {
    "greedy": _greedy,
    "beam": _beam,
    "pairwise": _pairwise,
    "evolution": _evolution,
    "influence": _influence,
    "influence_again": _influence_again,
    "window": _window,
    "relative": _relative,
    "cka": _cka,
    "perplexity": _perplexity,
    "merges": _merges,
    "taylor": _taylor,
    "magnitude": _magnitude,
    "planned": _planned,
    "last_first": _last_first,
    "first_first": _first_first,
    "random": _random,
}
