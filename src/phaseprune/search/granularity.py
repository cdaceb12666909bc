"""``prune`` over halves of blocks: attention and MLP are candidates by themselves."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phaseprune.decision.transition import Transition
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.device_map import MAP
from phaseprune.decoder.halved import running_halves
from phaseprune.decoder.items import (
    NOUNS,
    block_of_item,
    check_granularity,
    half_items,
    lone_halves,
    whole_blocks,
)
from phaseprune.errors import UserError
from phaseprune.probes.guards import Guard, open_guard
from phaseprune.progress import Progress, silent
from phaseprune.questions.question import Task
from phaseprune.questions.split import split
from phaseprune.runs.directory import RunDirectory
from phaseprune.search.choice import Choice
from phaseprune.search.conclude import conclude
from phaseprune.search.half_steps import HalfSearch, run_half_steps
from phaseprune.search.judge import question_judge, text_judge
from phaseprune.search.objectives import OBJECTIVES
from phaseprune.search.plain_text import looked_at, read_text
from phaseprune.search.rank import free_blocks
from phaseprune.search.step import Search, Step
from phaseprune.search.stopping import stop_rule
from phaseprune.sweep.halves import open_halves
from phaseprune.sweep.kept import Kept
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.memory import kept_budget
from phaseprune.sweep.recorded import phases_option, recorded_trace, run_identity, sides_counted


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
    guard = Guard() if guard is None and stop.keep_text_loss is not None else guard
    calibration_task, evaluation_task = split(task, calibration, evaluation, seed)
    model = open_halves(decoder)
    with running_halves(model.view) as view:
        calibration_rows = prepare(view, calibration_task)
        chosen_by = read_text(view, text, choice, guard is not None)
    evaluation_rows = prepare(decoder, evaluation_task, streams=1)
    guarded = None
    if guard is not None:
        guarded = open_guard(decoder, guard, text, seed, chosen_by.tokens if chosen_by else 0)
    counts, inputs = sides_counted(calibration_rows, evaluation_rows)
    options = {**choice.options, "granularity": granularity, "remove": stop.most}
    options |= {"keep_accuracy": stop.keep_accuracy} | ({"protect": protect} if protect else {})
    options |= (chosen_by.identity if chosen_by else {}) | phases_option(transition)
    if guarded:
        options |= guarded.identity | {"keep_text_loss": stop.keep_text_loss}
    identity = run_identity("prune", decoder, task, seed, options | choice.how | counts)
    with tempfile.TemporaryDirectory() as scratch:
        run = RunDirectory(Path(scratch if out is None else out))
        told = _told(choice, granularity, looked_at(choice, calibration_task, chosen_by), protect)
        settings = {"task_settings": dict(task.settings), "chosen_by": told}
        state = run.begin(identity, {"arguments": arguments, **settings, **counts, **inputs})
        full = recorded_trace(
            run, decoder, evaluation_rows, seed, progress, "full model, evaluation questions",
            transition,
        )  # fmt: skip
        judge = question_judge(view, calibration_rows)
        if chosen_by is not None:
            judge = text_judge(view, chosen_by.windows, chosen_by.rows)
        search = Search(
            decoder, calibration_rows, evaluation_rows, choice.method.objective, stop,
            full.transition, seed, judge, Kept(kept_budget(view, judge.rows)), None, guarded,
            frozenset(range(len(decoder.blocks))) - free,
        )  # fmt: skip
        work = HalfSearch(granularity, model, search)
        steps = [Step(**line) for line in run.steps()]
        if state != "finished":
            with run.work():
                run_half_steps(run, work, full, steps, progress)
            run.update(status="finished", result=_conclude(work, steps))
        manifest = run.manifest
        return full, steps, manifest["result"], state, manifest.get("chosen_by")


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
