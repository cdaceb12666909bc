"""``phaseprune prune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from phaseprune.cli import options as o
from phaseprune.cli.console import (
    Screen,
    block_list,
    command_line,
    load_checked,
    load_questions,
    run_path,
    task_name,
    task_settings,
    typed_command,
)
from phaseprune.cli.export import say_correction
from phaseprune.cli.prune_tasks import show_tasks, task_names, task_weights
from phaseprune.errors import UserError


def prune(
    context: typer.Context,
    model: o.Model,
    task: Annotated[
        str | None,
        typer.Option("--task", metavar="TASKS", help="A file of questions (.jsonl, .csv, …); a "
                     "benchmark's name (`phaseprune tasks` lists them); lm_eval:NAME; or "
                     "'demo', the default for the bundled model. Or several, as arc_easy,piqa: "
                     "blocks are chosen by all together."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", metavar="W,W,…", help="Of several tasks: how much each counts, "
                     "as 2,1,1. [default: all the same]"),
    ] = None,
    combine: Annotated[
        str | None,
        typer.Option("--combine", help="Of several tasks: choose by the mean or the worst of what "
                     "is left of each. [default: mean]"),
    ] = None,
    scoring: o.Scoring = None,
    remove: Annotated[
        int | None, typer.Option("--remove", help="Remove this many blocks.")
    ] = None,
    ratio: Annotated[
        float | None, typer.Option("--ratio", help="Or this share of the blocks, as 0.25.")
    ] = None,
    keep_accuracy: Annotated[
        float | None,
        typer.Option(
            "--keep-accuracy", help="Stop before less than this share of the accuracy above chance "
            "is left on the evaluation questions. [default: 0.9 if no other rule is given]",
        ),
    ] = None,
    keep_text_loss: Annotated[
        float | None,
        typer.Option("--keep-text-loss", metavar="X", help="Stop before the loss on plain text has "
                     "risen by more than this share of the full model's: 0.2 is a rise by a fifth. "
                     "Brings --guard with it."),
    ] = None,
    guard: Annotated[
        bool,
        typer.Option("--guard", help="Look at each step beyond questions: loss on plain text, "
                     "greedy continuations against the full model's, repetition."),
    ] = False,
    method: Annotated[
        str | None,
        typer.Option("--method", metavar="NAME", help="Choose blocks by this method of `phaseprune "
                     "methods`. [default: the search by --objective]"),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option("--objective", help="Search by: decision_margin, debiased_margin (letters: "
                     "without the label prior), accuracy or loss (of the gold option), on the "
                     "calibration questions; or text_loss, on --text. "
                     "[default: decision_margin]"),
    ] = None,
    protect: Annotated[
        str | None,
        typer.Option("--protect", metavar="I,J,…", help="Never remove these blocks."),
    ] = None,
    among: Annotated[
        str,
        typer.Option("--among", help="Which blocks the search may remove: all, or decisive: the "
                     "Decisive ones of the model as it is, traced anew before each step."),
    ] = "all",
    keep_period: Annotated[
        bool,
        typer.Option("--keep-period", help="Remove only what keeps the pattern of the blocks "
                     "(Gemma 3: a full attention every sixth), so that programs that take it by "
                     "position, as llama.cpp, run the export: whole periods, or from the end."),
    ] = False,
    granularity: Annotated[
        str,
        typer.Option("--granularity", help="What is removed one at a time: block; or halves of "
                     "blocks, attention or mlp, or sublayer for both kinds."),
    ] = "block",
    text: Annotated[
        Path | None,
        typer.Option("--text", metavar="FILE", help="Plain text: its first 16 windows of 512 "
                     "tokens are what --objective text_loss and a --method that looks at text "
                     "choose by; of --guard its beginning, or what follows these. [default of "
                     "--guard: a bundled text]"),
    ] = None,
    search: Annotated[
        str,
        typer.Option("--search", help="exact: every candidate on all calibration questions; "
                     "racing: drop early what is significantly worse."),
    ] = "exact",
    race_alpha: Annotated[
        float | None,
        typer.Option("--race-alpha", help="Racing: the chance, a step, of a choice worse than the "
                     "best by more than the tolerance. [default: 0.05]"),
    ] = None,
    race_tolerance: Annotated[
        float | None,
        typer.Option("--race-tolerance", help="Racing: loss of the objective that is accepted. "
                     "[default: 0.02]"),
    ] = None,
    race_dtype: Annotated[
        str | None,
        typer.Option("--race-dtype", help="Racing: of matrix products: own (the model's), "
                     "bfloat16, or auto (the faster one here). [default: auto]"),
    ] = None,
    calibration: Annotated[
        int | None,
        typer.Option("--calibration", help="Questions to choose on. [default: a third, up to 64]"),
    ] = None,
    evaluation: Annotated[
        int | None,
        typer.Option("--evaluation", help="Other questions to report on. [default: all others]"),
    ] = None,
    export: Annotated[
        bool,
        typer.Option("--export/--no-export", help="Write the pruned checkpoint to RUN/model."),
    ] = True,
    repair_labels: o.RepairLabels = False,
    out: o.Out = None,
    limit: o.Limit = None,
    seed: o.Seed = 0,
    length_norm: o.LengthNorm = "none",
    probability: o.Probability = "options",
    labels: o.Labels = None,
    shots: o.Shots = None,
    shots_from: o.ShotsFrom = None,
    shot_order: o.ShotOrder = "first",
    shuffle: o.Shuffle = False,
    permute: o.Permute = False,
    chat: o.Chat = False,
    columns: o.Columns = None,
    data_dir: o.DataDir = None,
    lm_eval_path: o.LmEvalPath = None,
    device: o.Device = "auto",
    dtype: o.Dtype = "auto",
    stream: o.Stream = None,
    max_memory: o.MaxMemory = None,
    revision: o.Revision = None,
    trust_remote_code: o.TrustRemoteCode = False,
    blocks: o.Blocks = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:  # fmt: skip
    """Remove blocks one at a time, report honestly, export, prove the export.

    Blocks are chosen on calibration questions (by Iterative Pruning, or any --method) and all
    figures are of other, evaluation questions.
    A run that was stopped goes on with the same command.
    """
    screen = Screen(as_json, quiet)
    task = task_name(model, task)
    settings = task_settings(locals())
    from phaseprune.probes.guards import Guard
    from phaseprune.pruning.request import PruneRequest
    from phaseprune.runs.directory import RunDirectory

    check_repair(repair_labels, export)
    names = task_names(task)
    request = PruneRequest(
        tasks=len(names), weights=task_weights(weights), combine=combine, remove=remove,
        ratio=ratio, keep_accuracy=keep_accuracy, keep_text_loss=keep_text_loss,
        guard=Guard() if guard else None, method=method, objective=objective,
        protect=[] if protect is None else block_list(protect, "--protect"), text=text,
        search=search, granularity=granularity, among=among, keep_period=keep_period,
        race_alpha=race_alpha, race_tolerance=race_tolerance, race_dtype=race_dtype,
        calibration=calibration, evaluation=evaluation, seed=seed,
    )  # fmt: skip
    request.check_placement(device, stream)
    questions = [load_questions(screen, name, limit, settings) for name in names]
    request.check_questions(questions)
    if repair_labels and {one.scoring for one in questions} != {"letter"}:
        raise UserError(
            "--repair-labels takes the label prior off, and texts have none; leave it out, or "
            "give --scoring letter"
        )
    run = run_path(out, "prune", model, task)
    directory = RunDirectory(run)
    context.with_resource(directory.lock_unless_finished())
    decoder = load_checked(
        model, screen, device=device, dtype=dtype, revision=revision,
        trust_remote_code=trust_remote_code, blocks=blocks, stream=stream,
        max_memory=max_memory,
    )  # fmt: skip
    from phaseprune.decoder.export import check_exportable, taken_by_position
    from phaseprune.pruning.export_run import export_run
    from phaseprune.pruning.prune import run_request
    from phaseprune.report.html import write_report
    from phaseprune.report.words import input_lines

    if export:
        try:
            limits = check_exportable(decoder, granularity in ("block", "sublayer"))
        except UserError as error:
            raise UserError(f"{error} (--no-export searches without it)") from None
        if limits:
            screen.note(f"not every removal of this model can be exported: {limits}")
        if not keep_period and (by_position := taken_by_position(decoder)):
            screen.note(by_position)
    with screen.progress() as progress:
        pruning = run_request(
            decoder, questions, request, out=run, arguments=typed_command(), progress=progress
        )
    if pruning.state == "finished":
        screen.note(f"{run} was finished before; this is its result")
    exported = pruning.result["export"]
    if export and pruning.removed and not (exported and directory.model_path.is_dir()):
        screen.note(f"exporting to {directory.model_path} and reloading it")
        export_run(decoder, directory, repair_labels=repair_labels)
    report = write_report(run)
    result = pruning.to_dict() | {"result": directory.manifest["result"]}
    (show if len(names) == 1 else show_tasks)(screen, result)
    for line in input_lines(directory.manifest):
        screen.note(line)
    if repair_labels:
        say_correction(screen, directory.model_path)
    screen.say(f"report: {report}")
    screen.next(
        command_line("export", run, "--step", max(1, pruning.result["chosen_step"]),
                     "--out", "DIRECTORY"),
        command_line("report", run),
    )  # fmt: skip
    screen.result(result)


def check_repair(repair_labels: bool, export: bool) -> None:
    """Refuse a correction that would be written nowhere."""
    if repair_labels and not export:
        raise UserError(
            "--repair-labels writes into the exported checkpoint, and --no-export makes none; "
            "leave one of them out"
        )


def show(screen: Screen, pruning: dict) -> None:
    """Print the steps of a pruning run and what they come to."""
    from phaseprune.report import words
    from phaseprune.report.collapse_words import collapse_line, fall_lines
    from phaseprune.report.guard_words import guard_lines, guards_table
    from phaseprune.report.item_words import removed_line
    from phaseprune.report.merge_words import merged_lines
    from phaseprune.report.tables import steps_table
    from phaseprune.report.transition_words import phases_line

    trace, steps, result = pruning["trace"], pruning["steps"], pruning["result"]
    screen.say(phases_line(trace))
    screen.say(steps_table(steps, result))
    if guards := guards_table(steps):
        screen.say(guards)
    screen.say(f"the search ended: {result['stopped_by']}")
    screen.say(removed_line(steps, result))
    for line in merged_lines(steps, result):
        screen.say(line)
    if pruning["chosen_by"]:
        screen.say(pruning["chosen_by"]["in_words"])
    screen.say(words.accuracy_line(result, trace["chance"], trace["questions"]))
    screen.say(collapse_line(result, steps))
    for line in [*fall_lines(result, steps), *guard_lines(result)]:
        screen.say(line)
    if result.get("racing"):
        screen.say(words.racing_line(result["racing"]))
    if result["export"]:
        screen.say(
            f"exported: {result['export']['path']}, reloaded from disk, max |Δ logits| "
            f"{result['export']['max_abs_logit_difference']:.2g}"
        )
        for line in result["export"].get("zeroed_in_words", ()):
            screen.say(line)
        for warning in result["export"].get("warnings", ()):
            screen.note(warning)
