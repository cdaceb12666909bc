"""``phaseprune prune``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from phaseprune.cli import options as o
from phaseprune.cli.execute import Run
from phaseprune.cli.export import say_correction
from phaseprune.cli.screen import block_list, command_line
from phaseprune.errors import UserError


@dataclass(frozen=True, kw_only=True)
class StopOptions:
    """How many blocks go, or when it is enough."""

    remove: Annotated[int | None, o.option("--remove", "Remove this many blocks.")] = None
    ratio: Annotated[float | None, o.option("--ratio", "Or this share of the blocks, as 0.25.")] = (
        None
    )
    keep_accuracy: Annotated[
        float | None,
        o.option(
            "--keep-accuracy",
            "Stop before less than this share of the accuracy above chance "
            "is left on the evaluation questions.",
            default="0.9 if no other rule is given",
        ),
    ] = None
    keep_text_loss: Annotated[
        float | None,
        o.option(
            "--keep-text-loss",
            "Stop before the loss on plain text has risen by more than "
            "this share of the full model's: 0.2 is a rise by a fifth. Brings --guard with "
            "it.",
            metavar="X",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ChoiceOptions:
    """By what blocks are chosen."""

    method: Annotated[
        str | None,
        o.option(
            "--method",
            "Choose blocks by this method of `phaseprune methods`.",
            o.SEARCH,
            metavar="NAME",
            default="the search by --objective",
        ),
    ] = None
    objective: Annotated[
        str | None,
        o.option(
            "--objective",
            "Search by: decision_margin, debiased_margin (letters: without the "
            "label prior), accuracy or loss (of the gold option), on the calibration "
            "questions; or text_loss, on --text.",
            o.SEARCH,
            default="decision_margin",
        ),
    ] = None
    search: Annotated[
        str,
        o.option(
            "--search",
            "exact: every candidate on all calibration questions; racing: drop "
            "early what is significantly worse.",
            o.SEARCH,
        ),
    ] = "exact"
    race_alpha: Annotated[
        float | None,
        o.option(
            "--race-alpha",
            "Racing: the chance, a step, of a choice worse than the best by "
            "more than the tolerance.",
            o.SEARCH,
            default="0.05",
        ),
    ] = None
    race_tolerance: Annotated[
        float | None,
        o.option(
            "--race-tolerance",
            "Racing: loss of the objective that is accepted.",
            o.SEARCH,
            default="0.02",
        ),
    ] = None
    race_dtype: Annotated[
        str | None,
        o.option(
            "--race-dtype",
            "Racing: of matrix products: own (the model's), bfloat16, or auto "
            "(the faster one here).",
            o.SEARCH,
            default="auto",
        ),
    ] = None


@o.command
def prune(
    context: typer.Context,
    model: o.ModelOptions,
    questions: o.TasksOptions,
    stop: StopOptions,
    chosen: ChoiceOptions,
    output: o.RunOptions,
    guard: Annotated[
        bool,
        o.option(
            "--guard",
            "Look at each step beyond questions: loss on plain text, greedy "
            "continuations against the full model's, repetition.",
        ),
    ] = False,
    text: Annotated[
        Path | None,
        o.option(
            "--text",
            "Plain text: its first 16 windows of 512 tokens are what --objective "
            "text_loss and a --method that looks at text choose by; of --guard its beginning, "
            "or what follows these.",
            o.SEARCH,
            metavar="FILE",
            default="of --guard: a bundled text",
        ),
    ] = None,
    protect: o.Protect = None,
    among: Annotated[
        str,
        o.option(
            "--among",
            "Which blocks the search may remove: all, or decisive: the Decisive "
            "ones of the model as it is, traced anew before each step.",
            o.SEARCH,
        ),
    ] = "all",
    keep_period: Annotated[
        bool,
        o.option(
            "--keep-period",
            "Remove only what keeps the pattern of the blocks (Gemma 3: a "
            "full attention every sixth), so that programs that take it by position, as "
            "llama.cpp, run the export: whole periods, or from the end.",
            o.SEARCH,
        ),
    ] = False,
    granularity: Annotated[
        str,
        o.option(
            "--granularity",
            "What is removed one at a time: block; or halves of blocks, "
            "attention or mlp, or sublayer for both kinds.",
            o.SEARCH,
        ),
    ] = "block",
    weights: Annotated[
        str | None,
        o.option(
            "--weights",
            "Of several tasks: how much each counts, as 2,1,1.",
            o.SEARCH,
            metavar="W,W,…",
            default="all the same",
        ),
    ] = None,
    combine: Annotated[
        str | None,
        o.option(
            "--combine",
            "Of several tasks: choose by the mean or the worst of what is left of each.",
            o.SEARCH,
            default="mean",
        ),
    ] = None,
    calibration: o.Calibration = None,
    evaluation: o.Evaluation = None,
    export: Annotated[
        bool,
        o.option("--export/--no-export", "Write the pruned checkpoint to RUN/model.", o.OUTPUT),
    ] = True,
    repair_labels: o.RepairLabels = False,
) -> None:
    """Remove blocks one at a time, report honestly, export, prove the export.

    Blocks are chosen on calibration questions (by Iterative Pruning, or any --method) and all
    figures are of other, evaluation questions.
    A run that was stopped goes on with the same command.
    """
    from phaseprune.probes.guards import Guard
    from phaseprune.pruning.request import PruneRequest
    from phaseprune.runs.directory import RunDirectory

    run = Run("prune", model, questions, output)
    check_repair(repair_labels, export)
    names = run.task_names()
    request = PruneRequest(
        tasks=len(names),
        weights=task_weights(weights),
        combine=combine,
        **vars(stop),
        **vars(chosen),
        guard=Guard() if guard else None,
        protect=block_list(protect),
        text=text,
        granularity=granularity,
        among=among,
        keep_period=keep_period,
        calibration=calibration,
        evaluation=evaluation,
        seed=questions.seed,
    )
    request.check_placement(model.device, model.stream)
    tasks = [run.load_questions(name) for name in names]
    request.check_questions(tasks)
    if repair_labels and {task.scoring for task in tasks} != {"letter"}:
        raise UserError(
            "--repair-labels takes the label prior off, and texts have none; leave it out, or "
            "give --scoring letter"
        )
    directory = RunDirectory(run.path)
    context.with_resource(directory.lock_unless_finished())
    decoder = run.load_model()
    if export:
        refuse_to_export(run, decoder, granularity, keep_period)
    from phaseprune.pruning.export_run import export_run
    from phaseprune.pruning.prune import run_request
    from phaseprune.report.prune import prune_view

    pruning = run.work(run_request, decoder, tasks, request)
    exported = pruning.result["export"]
    if export and pruning.removed and not (exported and directory.model_path.is_dir()):
        run.screen.note(f"exporting to {directory.model_path} and reloading it")
        export_run(decoder, directory, repair_labels=repair_labels)
    result = pruning.to_dict() | {"result": directory.manifest["result"]}
    run.show(prune_view(result), export_warnings(result))
    if repair_labels:
        say_correction(run.screen, directory.model_path)
    step = max(1, pruning.result["chosen_step"])
    run.end(
        result,
        command_line("export", run.path, "--step", step, "--out", "DIRECTORY"),
        command_line("report", run.path),
    )


def refuse_to_export(run: Run, decoder: Any, granularity: str, keep_period: bool) -> None:
    """Refuse a model that could not be exported in the end; say which removals could not be.

    Raises:
        UserError: nothing of it can be exported.
    """
    from phaseprune.decoder.export import check_exportable, taken_by_position

    try:
        limits = check_exportable(decoder, granularity in ("block", "sublayer"))
    except UserError as error:
        raise UserError(f"{error.typed} (--no-export searches without it)") from None
    if limits:
        run.screen.note(f"not every removal of this model can be exported: {limits}")
    if not keep_period and (by_position := taken_by_position(decoder)):
        run.screen.note(by_position)


def check_repair(repair_labels: bool, export: bool) -> None:
    """Refuse a correction that would be written nowhere."""
    if repair_labels and not export:
        raise UserError(
            "--repair-labels writes into the exported checkpoint, and --no-export makes none; "
            "leave one of them out"
        )


def task_weights(text: str | None) -> list[float] | None:
    """The weights that ``--weights`` gives; None where it is not given.

    Raises:
        UserError: they are no numbers.
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise UserError(f"--weights {text!r} must be numbers, one a task, as 2,1,1") from None


def export_warnings(pruning: dict) -> Sequence[str]:
    """Where another program would make another model of what was exported."""
    return (pruning["result"]["export"] or {}).get("warnings", ())
