"""The steps of a pruning run: what they work with, and each kept as soon as it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from phaseprune.decision.trace import Trace
from phaseprune.decision.transition import Transition
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.patterns import Pattern
from phaseprune.errors import UserError
from phaseprune.methods.choice import Choice
from phaseprune.methods.judge import Judge, question_judge, text_judge
from phaseprune.methods.plain_text import PlainText
from phaseprune.methods.racing import make_racing
from phaseprune.methods.rank import Ranking
from phaseprune.probes.guards import TextGuard
from phaseprune.progress import Progress
from phaseprune.pruning.iterative import by_search, first_step, next_steps
from phaseprune.pruning.ranked import by_ranking
from phaseprune.pruning.step import Search, Step
from phaseprune.pruning.stopping import Stop
from phaseprune.runs.directory import RunDirectory
from phaseprune.sweep.estimate import faster_products
from phaseprune.sweep.kept import Kept
from phaseprune.sweep.measure import Prepared
from phaseprune.sweep.memory import kept_budget


def open_search(
    run: RunDirectory,
    decoder: Decoder,
    choice: Choice,
    free: Sequence[int],
    calibration: Prepared,
    evaluation: Prepared,
    text: PlainText | None,
    stop: Stop,
    transition: Transition,
    seed: int,
    guard: TextGuard | None,
    among: str = "all",
    pattern: Pattern | None = None,
) -> Search:
    """What the steps of a run work with.

    Args:
        run: that keeps which products races use.
        decoder: the model.
        choice: what chooses.
        free: the blocks that may be removed.
        calibration: questions to choose by.
        evaluation: questions to report on.
        text: to choose by in place of the calibration questions.
        stop: when to end.
        transition: of the full model.
        seed: of intervals and of what is drawn.
        guard: what each step is looked at by beyond questions.
        among: which blocks may go, ``all`` or the ``decisive`` ones.
        pattern: of the blocks' kinds, to be kept.
    """
    objective, how = choice.method.objective, choice.how
    protect = frozenset(range(len(decoder.blocks))) - frozenset(free)
    judge = question_judge(decoder, calibration)
    if text is not None:
        judge = text_judge(decoder, text.windows, text.rows)
    racing = None
    if how.get("search") == "racing":
        products = race_products(run, decoder, judge, how)
        racing = make_racing(decoder, judge, objective, how, seed, products, protect)
    return Search(
        decoder, calibration, evaluation, objective, stop, transition, seed, judge,
        Kept(kept_budget(decoder, judge.rows)), racing, guard, protect, among,
        pattern,
    )  # fmt: skip


def race_products(
    run: RunDirectory, decoder: Decoder, judge: Judge, how: dict[str, Any]
) -> torch.dtype | None:
    """The dtype of matrix products in races, measured once a run; None is the model's own."""
    if "race_products" not in run.manifest:
        wanted, found, gain = how["race_dtype"], None, None
        if wanted == "bfloat16":
            found = torch.bfloat16
        elif wanted == "auto" and how["tolerance"] > 0:
            found, gain = faster_products(decoder, judge.rows)
        name = str(found).removeprefix("torch.") if found else None
        run.update(race_products={"dtype": name, "times_faster": gain})
    name = run.manifest["race_products"]["dtype"]
    return getattr(torch, name) if name else None


def run_steps(
    run: RunDirectory,
    search: Search,
    full: Trace,
    steps: list[Step],
    rank: Callable[[Progress], Ranking],
    progress: Progress,
) -> None:
    """Run the steps that are missing, keeping each on disk as soon as it is done.

    Args:
        run: that keeps them.
        search: from ``open_search``.
        full: the full model's trace.
        steps: the finished ones; takes those that are run.
        rank: ranks the blocks where no candidates are judged.
        progress: told of each block pass.

    Raises:
        UserError: a share of an accuracy is to be kept that is not above chance.
    """
    began = time.perf_counter()
    if not steps:
        steps.append(first_step(search, full.decisions, progress))
        run.append_step(steps[0].to_dict())
    refuse_keeping(search, full, steps[0])
    if search.objective is None:
        choose = by_ranking(run, rank)
    else:
        scored = run.candidates()
        choose = by_search(
            search,
            steps[-1].step,
            lambda number: [line for line in scored if line["step"] == number],
            run.append_candidates,
        )
    for step in next_steps(search, list(steps), choose, progress):
        steps.append(step)
        run.append_step(step.to_dict())
        run.add_timings(search=step.seconds)
    run.add_timings(prune=time.perf_counter() - began)


def refuse_keeping(search: Search, full: Trace, first: Step) -> None:
    """Refuse to keep a share of an accuracy that is not above chance."""
    if search.stop.keep_accuracy is not None and first.retained is None:
        raise UserError(
            f"{full.task}: the full model's accuracy {first.evaluation['accuracy']:.3f} is not "
            f"above chance {full.chance:.3f}, so no share of it can be kept; give --remove instead"
        )
