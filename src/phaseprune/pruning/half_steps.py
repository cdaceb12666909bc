"""The steps of a search over halves of blocks, as ``search.iterative`` over whole ones.

At each step the half goes whose removal leaves the best objective; then all are looked at again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from phaseprune.decision.decisions import Decisions
from phaseprune.decision.trace import Trace
from phaseprune.decoder.items import block_of_item, half_items, place_of_item, whole_blocks
from phaseprune.decoder.sublayers import skipped_items
from phaseprune.methods.objectives import best, figures
from phaseprune.progress import Progress
from phaseprune.pruning.iterative import first_step
from phaseprune.pruning.step import Search, Step, make_step
from phaseprune.pruning.steps import refuse_keeping
from phaseprune.runs.directory import RunDirectory
from phaseprune.sweep.halves import Halved, sweep_halves, trace_without


@dataclass(frozen=True)
class HalfSearch:
    """What a search over halves of blocks works with.

    Attributes:
        granularity: which halves are candidates (``decoder.items.GRANULARITIES``).
        model: the model and its halves.
        search: the rest; its judge's rows are laid out for ``model.view``.
    """

    granularity: str
    model: Halved
    search: Search

    @property
    def items(self) -> list[str]:
        """All halves of the granularity, protected ones among them."""
        return half_items(self.granularity, len(self.model.decoder.blocks))

    def candidates(self, removed: Collection[str]) -> list[str]:
        """The halves that may go where some are gone."""
        protect = self.search.protect
        return [i for i in self.items if i not in removed and block_of_item(i) not in protect]


def run_half_steps(
    run: RunDirectory, work: HalfSearch, full: Trace, steps: list[Step], progress: Progress
) -> None:
    """Run the steps that are missing, keeping each on disk as soon as it is done."""
    began = time.perf_counter()
    if not steps:
        first = first_step(work.search, full.decisions, progress)
        steps.append(replace(first, kept=work.items))
        run.append_step(steps[0].to_dict())
    refuse_keeping(work.search, full, steps[0])
    lines = run.candidates()
    scored = lambda number: [line for line in lines if line["step"] == number]  # noqa: E731
    for step in next_steps(work, list(steps), scored, run.append_candidates, progress):
        steps.append(step)
        run.append_step(step.to_dict())
        run.add_timings(search=step.seconds)
    run.add_timings(prune=time.perf_counter() - began)


def next_steps(
    work: HalfSearch,
    steps: list[Step],
    scored: Callable[[int], list[dict[str, Any]]],
    keep: Callable[[list[dict[str, Any]]], None],
    progress: Progress,
) -> Iterator[Step]:
    """Go on from the given steps until the stop rule ends the search.

    Args:
        work: what to work with.
        steps: the finished steps, the first of them step 0.
        scored: gives the candidates of a step that an interrupted run has scored already.
        keep: called with the candidates of each step as soon as they are scored.
        progress: told of each run of a half.

    Yields:
        Each further step when it is done.
    """
    search, latest = work.search, steps[-1]
    removed = [step.removed for step in steps[1:]]
    while search.ended(latest) is None:
        number = latest.step + 1
        candidates = scored(number)
        if len(candidates) != len(work.candidates(removed)):
            candidates = score_candidates(work, removed, number, progress)
            keep(candidates)
        chosen = candidates[best(search.objective, [c[search.objective] for c in candidates])]
        removed.append(chosen["item"])
        label = f"step {number}: without {chosen['item']}"
        calibration, evaluated = chosen, _evaluated(work, removed, progress, label)
        if not search.by_questions:
            raw = trace_without(
                work.model, search.calibration.rows, search.calibration.needs_vocabulary, removed,
                output_only=True, progress=progress, label=f"{label}: calibration questions",
            )  # fmt: skip
            calibration = figures(search.calibration.decide(raw)) | chosen
        guard = None
        if search.guard:
            with skipped_items(search.decoder, work.model.halves, removed):
                guard = search.guard.figures(
                    whole_blocks(removed), steps[0].guard, latest.guard, progress, label
                )
        step = make_step(
            search, whole_blocks(removed), block_of_item(chosen["item"]), calibration, evaluated,
            steps[0], chosen["block_passes"], chosen["seconds"], number, None, guard,
        )  # fmt: skip
        kept = [item for item in work.items if item not in removed]
        latest = replace(step, removed=chosen["item"], kept=kept)
        yield latest


def _evaluated(
    work: HalfSearch, removed: Sequence[str], progress: Progress, label: str
) -> Decisions:
    prepared = work.search.evaluation
    return prepared.decide(work.search.evaluated.then(removed, lambda known: trace_without(
        work.model, prepared.rows, prepared.needs_vocabulary, removed, known=known,
        progress=progress, label=f"{label}: evaluation",
    )))  # fmt: skip


def score_candidates(
    work: HalfSearch, removed: Sequence[str], number: int, progress: Progress
) -> list[dict[str, Any]]:
    """One line of ``candidates.jsonl`` for each candidate: the figures without it.

    ``block_passes`` and ``seconds`` are those of the whole step's sweep; a pass is of a half.
    """
    began = time.perf_counter()
    judge, candidates = work.search.judge, work.candidates(removed)
    sweep = sweep_halves(
        work.model, judge.rows, judge.needs_vocabulary, removed, candidates,
        kept=work.search.kept, progress=progress,
        label=f"step {number}: sweep over {len(work.model.names) - len(removed)} halves",
    )  # fmt: skip
    seconds = round(time.perf_counter() - began, 3)
    places = dict(zip(sweep.blocks, sweep.scores, strict=True))
    return [
        {"step": number, "item": item}
        | judge.figures(places[place_of_item(item)])
        | {"block_passes": sweep.block_passes, "seconds": seconds}
        for item in candidates
    ]
