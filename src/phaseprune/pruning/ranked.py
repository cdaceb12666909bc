"""Steps in the order of a ranking, which a run pays for once and keeps in its manifest."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from phaseprune.decision.laco import mixtures, read_merges
from phaseprune.methods.rank import Ranking
from phaseprune.progress import Progress
from phaseprune.pruning.iterative import Choose, Chosen
from phaseprune.pruning.step import Step
from phaseprune.runs.directory import RunDirectory


def by_ranking(run: RunDirectory, rank: Callable[[Progress], Ranking]) -> Choose:
    """Choose in the order of a ranking; its cost is the first step's.

    Args:
        run: that keeps the ranking.
        rank: measures it.
    """

    def choose(latest: Step, number: int, progress: Progress) -> Chosen:
        ranking = recorded_ranking(run, rank, progress)
        cost = (ranking["block_passes"], ranking["seconds"]) if number == 1 else (0, 0.0)
        merged = mixtures(read_merges(ranking.get("merges", ())), number)
        return Chosen(ranking["order"][number - 1], {}, *cost, merged=merged)

    return choose


def recorded_ranking(
    run: RunDirectory, rank: Callable[[Progress], Ranking], progress: Progress
) -> dict[str, Any]:
    """The ranking of a run: read back where the run has it, else measured and written."""
    ranking = run.manifest.get("ranking")
    if ranking is None:
        began = time.perf_counter()
        found = rank(progress).to_dict()
        ranking = found | {"seconds": round(time.perf_counter() - began, 3)}
        run.update(ranking=ranking)
    return ranking
