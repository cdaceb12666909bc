"""``phaseprune phasewise``."""

from __future__ import annotations

from typing import Annotated

import typer

from phaseprune.cli import options as o
from phaseprune.cli.console import (
    Screen,
    block_list,
    command_line,
    load_checked,
    load_questions,
    prompt_words,
    run_path,
    task_name,
    task_settings,
    typed_command,
)


def phasewise(
    model: o.Model,
    task: o.TaskName = None,
    scoring: o.Scoring = None,
    draws: Annotated[
        int,
        typer.Option("--draws", help="Random sets of each kind and number of blocks; all sets "
                     "where there are fewer."),
    ] = 20,
    most: Annotated[
        int | None,
        typer.Option("--most", help="Remove up to this many blocks at once. [default: as many as "
                     "the smaller phase has]"),
    ] = None,
    protect: Annotated[
        str | None,
        typer.Option("--protect", metavar="I,J,…", help="Never remove these blocks, as 0,1,2: are "
                     "the other Silent blocks dear too?"),
    ] = None,
    calibration: Annotated[
        int | None,
        typer.Option("--calibration", help="Questions to find the phases on. [default: a third, "
                     "up to 64]"),
    ] = None,
    evaluation: Annotated[
        int | None,
        typer.Option("--evaluation", help="Other questions to report on. [default: all others]"),
    ] = None,
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
    """Remove random sets of blocks from one phase alone: which phase does accuracy hang on?

    The phases are found on calibration questions; all accuracies are of other questions. Further
    sets tell the phase from the depth: Silent blocks are early blocks.
    """
    screen = Screen(as_json, quiet)
    kept = [] if protect is None else block_list(protect, "--protect")
    task = task_name(model, task)
    settings = task_settings(locals())

    questions = load_questions(screen, task, limit, settings)
    decoder = load_checked(
        model, screen, device=device, dtype=dtype, revision=revision,
        trust_remote_code=trust_remote_code, blocks=blocks, stream=stream,
        max_memory=max_memory,
    )  # fmt: skip
    from phaseprune.probes.phasewise import phasewise as compare_phases
    from phaseprune.report.html import write_report
    from phaseprune.report.phasewise_words import phasewise_lines, phasewise_tables
    from phaseprune.report.transition_words import phases_line
    from phaseprune.report.words import input_lines
    from phaseprune.runs.directory import RunDirectory

    run = run_path(out, "phasewise", model, task)
    with screen.progress() as progress:
        compared = compare_phases(
            decoder, questions, draws=draws, most=most, protect=kept,
            calibration=calibration, evaluation=evaluation, seed=seed, out=run,
            arguments=typed_command(), progress=progress,
        )  # fmt: skip
    report = write_report(run)
    result = compared.to_dict()
    if compared.state == "finished":
        screen.note(f"{run} was finished before; this is its result")
    screen.say(phases_line(result["trace"]))
    for table in phasewise_tables(result["result"]):
        screen.say(table)
    for line in phasewise_lines(result["result"]):
        screen.say(line)
    for line in input_lines(RunDirectory(run).manifest):
        screen.note(line)
    screen.say(f"report: {report}")
    screen.next(
        command_line("prune", model, "--task", task, *prompt_words(settings, questions.scoring))
    )
    screen.result(result)
