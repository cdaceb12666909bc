"""What says which unit goes next: an exact search, a race, or the order of a ranking."""

from __future__ import annotations

import time
from typing import Any

import torch

from phaseprune.decision.combined import best_place
from phaseprune.decision.laco import mixtures, read_merges
from phaseprune.decoder.items import Item
from phaseprune.methods.objectives import best
from phaseprune.methods.plain_text import looked_at
from phaseprune.methods.racing import make_racing, race_candidates, race_of_step
from phaseprune.methods.rank import rank_free
from phaseprune.progress import Progress
from phaseprune.pruning.search import Chooser, Chosen, Search, TaskSearch
from phaseprune.sweep.estimate import faster_matmul_dtype


def open_chooser(search: Search) -> Chooser:
    """The chooser that a run asks for."""
    if search.request.choice.ranks:
        return ByRanking()
    return ByRacing(search) if search.request.races else BySearch()


class BySearch:
    """The unit goes without which most is left, of all that may go, on all that each task has."""

    def choose(self, search: Search, progress: Progress) -> Chosen:
        """Read the candidates back where an interrupted run has them, else score and keep them."""
        number, free = len(search.steps), search.candidates(search.steps[-1])
        scored = []
        for task in search.tasks:
            lines = task.scored(number)
            if len(lines) != len(free):
                lines = self.score(search, task, free, search.named(task, progress))
                task.run.append_candidates(lines)
            scored.append(lines)
        race = self.race(scored[0])
        scored = [[line for line in lines if line.get("dropped") is None] for lines in scored]
        values = [[line[search.objective] for line in lines] for lines in scored]
        if search.together is None:
            place = best(search.objective, values[0])
        else:
            place = best_place(search.combined(values))
        lines = [lines[place] for lines in scored]
        return Chosen(lines[0][_key(search)], lines, race)

    def score(
        self, search: Search, task: TaskSearch, free: list[Item], progress: Progress
    ) -> list[dict[str, Any]]:
        """One line of ``candidates.jsonl`` for each candidate: the figures without it.

        ``block_passes`` and ``seconds`` are those of the whole step's sweep.
        """
        began, number, judge = time.perf_counter(), len(search.steps), task.judge
        sweep = search.units.sweep(
            judge.rows,
            judge.needs_vocabulary,
            search.removed,
            free,
            kept=task.kept,
            progress=progress,
            label=f"step {number}",
        )
        seconds = round(time.perf_counter() - began, 3)
        return [
            {"step": number, _key(search): unit}
            | judge.figures(scores)
            | {"block_passes": sweep.block_passes, "seconds": seconds}
            for unit, scores in zip(sweep.blocks, sweep.scores, strict=True)
        ]

    def race(self, lines: list[dict[str, Any]]) -> dict[str, Any] | None:
        """What the step says of a race; None, as there is none."""
        return None


class ByRacing(BySearch):
    """The same, where candidates that are significantly worse are given up early."""

    def __init__(self, search: Search):
        """Lay out the race, and learn from the steps that are finished."""
        (task,) = search.tasks
        how = search.request.choice.how
        self.racing = make_racing(
            search.units.decoder,
            task.judge,
            search.objective,
            how,
            search.request.seed,
            race_products(search, task),
            search.protected,
        )
        for number in range(1, len(search.steps)):
            self.racing.learn(task.scored(number))

    def score(
        self, search: Search, task: TaskSearch, free: list[Item], progress: Progress
    ) -> list[dict[str, Any]]:
        """See ``racing.race_candidates``."""
        live, number = search.steps[-1].kept, len(search.steps)
        return race_candidates(search.units.decoder, self.racing, live, number, progress)

    def race(self, lines: list[dict[str, Any]]) -> dict[str, Any]:
        """Learn from the step, and tell of its race."""
        self.racing.learn(lines)
        return race_of_step(self.racing, lines)


class ByRanking:
    """Blocks go in the order of a ranking, which a run measures once and keeps in its manifest."""

    def choose(self, search: Search, progress: Progress) -> Chosen:
        """The next of the order; its cost is the first step's."""
        number, ranking = len(search.steps), self._ranking(search, progress)
        cost = {"block_passes": 0, "seconds": 0.0}
        if number == 1:
            cost = {name: ranking[name] for name in cost}
        merged = mixtures(read_merges(ranking.get("merges", ())), number)
        return Chosen(ranking["order"][number - 1], [cost], merged=merged)

    @staticmethod
    def _ranking(search: Search, progress: Progress) -> dict[str, Any]:
        found = search.run.manifest.get("ranking")
        if found is None:
            began = time.perf_counter()
            choice, task = search.request.choice, search.tasks[0].calibration.task
            name = looked_at(choice, task, search.text)
            ranking = rank_free(
                search.units.decoder,
                choice.method,
                name,
                None if search.text is not None or name is None else task,
                search.text,
                search.free,
                search.stop.most,
                search.request.seed,
                progress,
            )
            found = ranking.to_dict() | {"seconds": round(time.perf_counter() - began, 3)}
            search.run.update(ranking=found)
        return found


def race_products(search: Search, task: TaskSearch) -> torch.dtype | None:
    """The dtype of matrix products in races, measured once a run; None is the model's own."""
    run, how = search.run, search.request.choice.how
    if "race_products" not in run.manifest:
        wanted, found, gain = how["race_dtype"], None, None
        if wanted == "bfloat16":
            found = torch.bfloat16
        elif wanted == "auto" and how["tolerance"] > 0:
            found, gain = faster_matmul_dtype(search.units.decoder, task.judge.rows)
        name = str(found).removeprefix("torch.") if found else None
        run.update(race_products={"dtype": name, "times_faster": gain})
    name = run.manifest["race_products"]["dtype"]
    return getattr(torch, name) if name else None


def _key(search: Search) -> str:
    """What a line of ``candidates.jsonl`` calls a unit."""
    return "block" if search.units.halves is None else "item"
