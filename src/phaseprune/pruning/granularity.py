"""``prune`` over halves of blocks: attention and MLP are candidates by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from phaseprune.decision.transition import Transition
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.halved import running_halves
from phaseprune.decoder.items import (
    NOUNS,
    block_of_item,
    check_granularity,
    half_items,
    lone_halves,
    whole_blocks,
)
from phaseprune.decoder.mapped import MAP
from phaseprune.errors import UserError
from phaseprune.methods.choice import Choice
from phaseprune.methods.judge import question_judge, text_judge
from phaseprune.methods.objectives import OBJECTIVES
from phaseprune.methods.rank import free_blocks
from phaseprune.probes.guards import Guard
from phaseprune.progress import Progress, silent
from phaseprune.pruning.conclude import conclude
from phaseprune.pruning.half_steps import HalfSearch, run_half_steps
from phaseprune.pruning.open_run import open_run
from phaseprune.pruning.step import Search, Step
from phaseprune.pruning.stopping import stop_rule
from phaseprune.questions.question import Task
from phaseprune.sweep.halves import open_halves
from phaseprune.sweep.kept import Kept
from phaseprune.sweep.memory import kept_budget


def check_choice(granularity: str, choice: Choice) -> None:
    """Refuse, before a model is loaded, what does not go with a granularity.

    Raises:
        UserError: an unknown granularity, racing, or a method that ranks blocks.
    """
    check_granularity(granularity)
    if granularity == "block":
        return
    if choice.ranks:
        raise UserError(
            f"{choice.word} ranks whole blocks and --granularity {granularity} removes halves of "
            f"blocks, which are searched by --objective {', '.join(OBJECTIVES)} or text_loss; "
            "leave one of the two out"
        )
    if choice.how.get("search") == "racing":
        raise UserError(
            f"--search racing goes with whole blocks only and --granularity is {granularity}; "
            "leave one of the two out"
        )


def refuse_spread(granularity: str, device: object, stream: bool | None) -> None:
    """Refuse, before a model is loaded, that its weights are not all in one memory.

    Raises:
        UserError: says which option does not go with halves.
    """
    spread = "--stream" if stream else f"--device {MAP}" if device == MAP else None
    if granularity != "block" and spread:
        raise UserError(
            f"--granularity {granularity} runs halves of blocks, which needs all weights in one "
            f"memory, and {spread} spreads them; leave one of the two out"
        )


def prune_halves(
    decoder: Decoder,
    task: Task,
    granularity: str,
    choice: Choice,
    rules: dict[str, float | None],
    *,
    protect: Sequence[int] = (),
    text: str | Path | None = None,
    guard: Guard | None = None,
    calibration: int | None = None,
    evaluation: int | None = None,
    seed: int = 0,
    transition: Transition | None = None,
    out: str | Path | None = None,
    arguments: str | None = None,
    progress: Progress = silent,
) -> tuple:
    """``prune`` over halves of blocks; what is not told here is as there.

    Args:
        decoder: from ``load_model``, with all its weights in one memory.
        task: from ``load_task``.
        granularity: which halves are candidates.
        choice: what chooses; a search.
        rules: ``remove`` and ``ratio`` (of the granularity's halves), ``keep_accuracy``,
            ``keep_text_loss``.
        protect: blocks of which no half is removed.
        text: see ``prune``.
        guard: see ``prune``.
        calibration: see ``prune``.
        evaluation: see ``prune``.
        seed: see ``prune``.
        transition: see ``prune``.
        out: see ``prune``.
        arguments: see ``prune``.
        progress: told of each run of a half.

    Returns:
        The arguments of ``prune.Pruning``.

    Raises:
        UserError: as ``prune``; a choice that goes with whole blocks only, or a model without such
            halves.
    """
    check_choice(granularity, choice)
    free = set(free_blocks(decoder, choice.method, protect))
    items = half_items(granularity, len(decoder.blocks))
    free_items = [item for item in items if block_of_item(item) in free]
    stop = stop_rule(
        len(items), **rules, free=range(len(free_items)), nouns=NOUNS[granularity]
    )  # fmt: skip
    model = open_halves(decoder)
    with open_run(
        decoder, task, choice, stop, running_halves(model.view),
        lambda on: _told(choice, granularity, on, protect), options={"granularity": granularity},
        protect=protect, text=text, guard=guard, calibration=calibration, evaluation=evaluation,
        seed=seed, transition=transition, out=out, arguments=arguments, progress=progress,
    ) as opened:  # fmt: skip
        judge = question_judge(model.view, opened.calibration)
        if opened.text is not None:
            judge = text_judge(model.view, opened.text.windows, opened.text.rows)
        search = Search(
            decoder, opened.calibration, opened.evaluation, choice.method.objective, stop,
            opened.full.transition, seed, judge, Kept(kept_budget(model.view, judge.rows)), None,
            opened.guard, frozenset(range(len(decoder.blocks))) - free,
        )  # fmt: skip
        work = HalfSearch(granularity, model, search)
        return opened.finish(
            partial(run_half_steps, opened.run, work, opened.full, opened.steps, progress),
            partial(_conclude, work, opened.steps),
        )


def _told(
    choice: Choice, granularity: str, on: str | None, protect: Sequence[int]
) -> dict[str, Any]:
    """``Choice.told``, which speaks of blocks, of halves."""
    told = choice.told(on, protect)
    what = {"attention": "Attention halves", "mlp": "MLP halves", "sublayer": "Halves"}[granularity]
    words = told["in_words"].replace("Blocks were", f"{what} of blocks were", 1)
    words = words.replace(" Protected: ", " Protected, both halves: ")
    return told | {"granularity": granularity, "in_words": words}


def _conclude(work: HalfSearch, steps: list[Step]) -> dict[str, Any]:
    """The ``result``, and what it means for blocks."""
    result = conclude(work.search, steps)
    return result | {
        "granularity": work.granularity,
        "blocks": len(work.model.decoder.blocks),
        "whole_blocks": whole_blocks(result["removed"]),
        "zeroed": lone_halves(result["removed"]),
    }
