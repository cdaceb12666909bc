"""``prune``: one unit removed at a time, in a run directory that can be gone on with."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from phaseprune.decision.transition import Transition
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.export import model_pattern
from phaseprune.decoder.items import NOUNS, Item, all_items, block_of_item
from phaseprune.errors import UserError
from phaseprune.methods.judge import question_judge, text_judge
from phaseprune.methods.plain_text import PlainText, looked_at, read_text
from phaseprune.methods.rank import check_measurable, free_blocks
from phaseprune.probes.guards import Guard, TextGuard, open_guard
from phaseprune.progress import Progress, silent
from phaseprune.pruning.choosers import open_chooser
from phaseprune.pruning.request import PruneRequest
from phaseprune.pruning.result import Pruning, conclude, pruning_of
from phaseprune.pruning.search import Search, TaskSearch, named, run_search
from phaseprune.pruning.step import Step, TasksStep
from phaseprune.pruning.stopping import Stop, stop_rule
from phaseprune.questions.question import Task
from phaseprune.questions.split import split
from phaseprune.runs.directory import RunDirectory
from phaseprune.runs.folders import PRUNE_TASKS
from phaseprune.sweep.kept import Kept
from phaseprune.sweep.measure import Prepared, label_tokens, prepare
from phaseprune.sweep.memory import kept_budget
from phaseprune.sweep.recorded import (
    phases_option,
    recorded_trace,
    run_identity,
    sides_counted,
    tasks_identity,
)
from phaseprune.sweep.rows import Rows
from phaseprune.sweep.units import open_units


def prune(
    decoder: Decoder,
    task: Task | Sequence[Task],
    *,
    weights: Sequence[float] | None = None,
    combine: str | None = None,
    remove: int | None = None,
    ratio: float | None = None,
    keep_accuracy: float | None = None,
    keep_text_loss: float | None = None,
    method: str | None = None,
    objective: str | None = None,
    protect: Collection[int] = (),
    granularity: str = "block",
    among: str = "all",
    keep_period: bool = False,
    search: str = "exact",
    race_alpha: float | None = None,
    race_tolerance: float | None = None,
    race_dtype: str | None = None,
    text: str | Path | None = None,
    guard: Guard | None = None,
    calibration: int | None = None,
    evaluation: int | None = None,
    seed: int = 0,
    transition: Transition | None = None,
    out: str | Path | None = None,
    arguments: str | None = None,
    progress: Progress = silent,
) -> Pruning:
    """Remove blocks one at a time, choosing on calibration, reporting on evaluation questions.

    Args:
        decoder: from ``load_model``.
        task: from ``load_task``; its questions are split by seed. Of several (a sequence), blocks
            are chosen by all together (docs/several-tasks.md).
        weights: of several tasks, one a task; by default equal.
        combine: of several tasks, ``mean`` (the default) or ``worst`` of what is left of each.
        remove: number of blocks to remove.
        ratio: or share of the blocks to remove.
        keep_accuracy: share of the accuracy above chance that must remain. With none of these rules
            the search keeps 0.9 of it (see ``stopping.stop_rule``).
        keep_text_loss: the most that the loss on the guards' text may rise, as a share of the full
            model's loss; brings guards with it.
        method: what chooses, a name in ``methods.METHODS``; one that ranks blocks looks at the
            calibration questions, or at ``text``, before the first step. None for the search by
            ``objective``.
        objective: of a search: ``decision_margin`` (the default), ``debiased_margin`` (of letters:
            without the label prior), ``accuracy`` or ``loss`` on the calibration questions, or
            ``text_loss``.
        protect: original indices of blocks that are never removed.
        among: of an exact search: ``all`` blocks may go, or only the ``decisive`` ones of the model
            as it is, by a trace on the calibration questions before each step.
        keep_period: of an exact search: keep the pattern that the blocks follow by their kinds (as
            a full attention every sixth block), which some programs take by position. Blocks go a
            period at a time, one by one: the first freely, those after it so that the pattern is
            whole again; or from the end. The chosen step is one at which it is whole.
        granularity: what is removed one at a time: ``block``, or halves of blocks: ``attention``,
            ``mlp`` or ``sublayer`` (both kinds), named as ``7.attention``; ``remove`` and ``ratio``
            are of these then, and ``protect`` keeps both halves of a block.
        search: ``exact`` scores every candidate on all calibration questions (or the whole text);
            ``racing`` drops those early that are significantly worse.
        race_alpha: of racing: probability with which a step may choose a block that is worse than
            the best by more than the tolerance; 0.05 by default.
        race_tolerance: of racing: in units of the objective; 0.02 by default.
        race_dtype: of racing: of the matrix products while candidates race, ``own`` (the model's),
            ``bfloat16``, or by default ``auto``, the faster one here by a quick measurement.
        text: a file of plain text: of ``text_loss`` and of methods that look at text, to choose by;
            of guards, to measure on, by default the bundled one. With both, guards take what
            follows the part chosen by.
        guard: look at each step beyond questions as well: loss on text, greedy continuations and
            repetition (``probes.guards``); None does not.
        calibration: number of questions to choose on.
        evaluation: number of questions to report on.
        seed: of the split and of all intervals.
        transition: the phases, where they were found on other (more) questions; by default they
            are found on the evaluation questions.
        out: run directory; an unfinished run in it goes on, a finished one is read. None keeps
            nothing on disk.
        arguments: the command line, for the manifest.
        progress: told of each block pass.

    Raises:
        UserError: options or questions that do not do, or a directory with another run.
    """
    tasks = [task] if isinstance(task, Task) else list(task)
    request = PruneRequest(
        tasks=len(tasks),
        weights=weights,
        combine=combine,
        remove=remove,
        ratio=ratio,
        keep_accuracy=keep_accuracy,
        keep_text_loss=keep_text_loss,
        method=method,
        objective=objective,
        protect=protect,
        granularity=granularity,
        among=among,
        keep_period=keep_period,
        search=search,
        race_alpha=race_alpha,
        race_tolerance=race_tolerance,
        race_dtype=race_dtype,
        text=text,
        guard=guard,
        calibration=calibration,
        evaluation=evaluation,
        seed=seed,
        transition=transition,
    )
    return run_request(decoder, tasks, request, out=out, arguments=arguments, progress=progress)


def run_request(
    decoder: Decoder,
    tasks: Sequence[Task],
    request: PruneRequest,
    *,
    out: str | Path | None = None,
    arguments: str | None = None,
    progress: Progress = silent,
) -> Pruning:
    """``prune`` by a request, which can be built before the model is loaded.

    Args:
        decoder: from ``load_model``.
        tasks: as many as the request is of.
        request: what to prune, by what, until when.
        out: see ``prune``.
        arguments: see there.
        progress: see there.

    Raises:
        UserError: as ``prune``.
    """
    with open_search(decoder, tasks, request, out, arguments, progress) as (search, state):
        if state != "finished":
            run_search(search, open_chooser(search), progress)
            conclude(search)
        return pruning_of(search, state)


@contextmanager
def open_search(
    decoder: Decoder,
    tasks: Sequence[Task],
    request: PruneRequest,
    out: str | Path | None,
    arguments: str | None,
    progress: Progress,
) -> Iterator[tuple[Search, str]]:
    """Begin a run, or go on with it, up to the full model's traces.

    Yields:
        The search, and whether the run is ``new``, ``resumed`` or ``finished``.

    Raises:
        UserError: questions or a text that do not do, or a directory with another run.
    """
    folders, choice, several = request.check_questions(tasks), request.choice, len(tasks) > 1
    free, stop = limits(decoder, request)
    pattern = model_pattern(decoder) if request.keep_period else None
    units = open_units(decoder, request.granularity)

    sides = [split(task, request.calibration, request.evaluation, request.seed) for task in tasks]
    check_apart(folders, sides)
    guard = request.guard or (Guard() if stop.keep_text_loss is not None else None)
    with units.running() as view:
        chosen_on = [prepare(view, calibration) for calibration, _ in sides]
        text = read_text(view, request.text, choice, guard is not None)
    scored_on = [prepare(decoder, evaluation, streams=1) for _, evaluation in sides]
    guarded = None
    if guard is not None:
        skip = text.tokens if text else 0
        guarded = open_guard(decoder, guard, request.text, request.seed, skip)
    judges = [
        question_judge(view, rows) if text is None else text_judge(view, text.windows, text.rows)
        for rows in chosen_on
    ]
    shares = kept_shares(view, [judge.rows for judge in judges])
    options = _options(request, stop, folders, text, guarded)
    on = looked_at(choice, sides[0][0], text)
    if several:
        on = _looked_at_together(request, folders, sides)
    noted = {"arguments": arguments, "chosen_by": request.told(on, pattern)}

    with tempfile.TemporaryDirectory() as scratch, ExitStack() as opened:
        run, state, together = RunDirectory(Path(scratch if out is None else out)), None, None
        own_runs = [run]
        if several:
            own_runs = [RunDirectory(run.path / folder) for folder in folders]
            state = opened.enter_context(
                run.open(
                    tasks_identity(
                        PRUNE_TASKS, decoder, tasks, folders, sides, request.seed, options
                    ),
                    {**noted, "tasks": folders, **_summed([*chosen_on, *scored_on])},
                )
            )
            together = [TasksStep(**line) for line in run.steps()]
        found = []
        for place, (task, own, folder) in enumerate(zip(tasks, own_runs, folders, strict=True)):
            calibration, evaluation = chosen_on[place], scored_on[place]
            counts, inputs = sides_counted(calibration, evaluation)
            told = {
                "task_settings": dict(task.settings),
                "label_tokens": label_tokens(decoder, evaluation.task),
            }
            begun = opened.enter_context(
                own.open(
                    run_identity("prune", decoder, task, request.seed, options | counts),
                    {**noted, **told, **counts, **inputs},
                    # Of several tasks, one may be concluded already where the whole run is not.
                    adds=several and state != "finished",
                )
            )
            full = recorded_trace(
                own,
                decoder,
                evaluation,
                request.seed,
                named(folder, progress) if several else progress,
                "full model, evaluation questions",
                request.transition,
            )
            steps = [Step(**line) for line in own.steps()]
            found.append(
                TaskSearch(
                    folder,
                    own,
                    full,
                    calibration,
                    evaluation,
                    judges[place],
                    Kept(shares[place]),
                    steps,
                )
            )
        search = Search(request, units, free, stop, run, found, together, text, guarded, pattern)
        yield search, state if several else begun


def limits(decoder: Decoder, request: PruneRequest) -> tuple[tuple[Item, ...], Stop]:
    """What of a model may go, and when the search ends.

    Raises:
        UserError: the model has not what is asked for, or no method can be measured on it.
    """
    method = request.choice.method
    blocks = free_blocks(decoder, method, request.protect)
    names = all_items(request.granularity, len(decoder.blocks))
    free = tuple(name for name in names if block_of_item(name) in blocks)
    nouns = NOUNS[request.granularity]
    stop = stop_rule(len(names), **request.rules, free=free, nouns=nouns)
    check_measurable(decoder, method, blocks, stop.most)
    return free, stop


def _options(
    request: PruneRequest,
    stop: Stop,
    folders: Sequence[str],
    text: PlainText | None,
    guard: TextGuard | None,
) -> dict[str, Any]:
    """The options of a run's identity; what is not asked for is not in it."""
    choice = request.choice
    options = {**choice.options, "remove": stop.most, "keep_accuracy": stop.keep_accuracy}
    if request.tasks > 1:
        weights = dict(zip(folders, request.task_weights, strict=True))
        options |= {"combine": request.combined_by, "weights": weights}
    if request.protect:
        options["protect"] = list(request.protect)
    if request.among != "all":
        options["among"] = request.among
    if request.keep_period:
        options["keep_period"] = True
    if request.granularity != "block":
        options["granularity"] = request.granularity
    if text is not None:
        options |= text.identity
    if guard is not None:
        options |= guard.identity | {"keep_text_loss": stop.keep_text_loss}
    return options | phases_option(request.transition) | choice.how


def check_apart(folders: Sequence[str], sides: Sequence[tuple[Task, Task]]) -> None:
    """Refuse questions that are chosen on in one task and reported on in another.

    Raises:
        UserError: names both tasks.
    """
    for folder, (chosen_on, _) in zip(folders, sides, strict=True):
        seen = {question.content for question in chosen_on.questions}
        for other, (_, scored_on) in zip(folders, sides, strict=True):
            common = sum(question.content in seen for question in scored_on.questions)
            if common:
                raise UserError(
                    f"{common} of the questions that {folder} chooses by would be reported on in "
                    f"{other}; take what both have in common out of one of them"
                )


def kept_shares(decoder: Decoder, rows: Sequence[Rows]) -> list[int]:
    """Bytes of states that each task may keep from step to step.

    Tasks are swept one after the other, so the largest step of them has to fit beside what all
    keep; that is shared by what a stream of each takes, so that all keep states at like depths.
    """
    budget = min(kept_budget(decoder, each) for each in rows)
    tokens = [each.padded_tokens for each in rows]
    return [budget * own // sum(tokens) for own in tokens]


def _summed(rows: Sequence[Prepared]) -> dict[str, int]:
    """What manifests say of the questions as they were put, over tasks and sides."""
    counts: Counter[str] = Counter()
    for prepared in rows:
        counts.update(prepared.input_counts)
    return dict(counts)


def _looked_at_together(
    request: PruneRequest, folders: Sequence[str], sides: Sequence[tuple[Task, Task]]
) -> str:
    """What blocks are chosen on by several tasks, in words."""
    parts = [
        f"{len(chosen_on.questions)} of {folder}"
        for folder, (chosen_on, _) in zip(folders, sides, strict=True)
    ]
    weights, weighted = request.task_weights, ""
    if len(set(weights)) > 1:
        weighted = f", weights {', '.join(f'{weight:g}' for weight in weights)}"
    return (
        f"calibration questions of several tasks, {', '.join(parts)}, by the "
        f"{request.combined_by} of what is left of each{weighted}"
    )
