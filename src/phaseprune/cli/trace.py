"""``phaseprune trace``."""

from __future__ import annotations

from typing import Annotated

import typer

from phaseprune.cli import options as o
from phaseprune.cli.console import (
    Screen,
    command_line,
    load_checked,
    load_questions,
    prompt_words,
    run_path,
    task_name,
    task_settings,
    typed_command,
)


def trace(
    model: o.Model,
    task: o.TaskName = None,
    scoring: o.Scoring = None,
    lens: Annotated[
        str,
        typer.Option("--lens", help="How middle states are read: logit (as they are) or tuned "
                     "(through an affine map a readout, fitted to calibration questions)."),
    ] = "logit",
    calibration: Annotated[
        int | None,
        typer.Option("--calibration", help="Of --lens tuned: questions to fit to, which are not "
                     "traced. [default: a third, up to 64]"),
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
    """Show where the model makes up its mind: Decision Margin, accuracy, options by readout."""
    screen = Screen(as_json, quiet)
    task = task_name(model, task)
    settings = task_settings(locals())
    from phaseprune.sweep.trace import split_for
    from phaseprune.sweep.trace import trace as measure

    questions = load_questions(screen, task, limit, settings)
    split_for(lens, questions, calibration, seed)  # refuses before the model is loaded
    decoder = load_checked(
        model, screen, device=device, dtype=dtype, revision=revision,
        trust_remote_code=trust_remote_code, blocks=blocks, stream=stream,
        max_memory=max_memory,
    )  # fmt: skip
    from phaseprune.report.depth_words import depth_lines
    from phaseprune.report.frequency_words import frequency_line
    from phaseprune.report.html import write_report
    from phaseprune.report.lens_words import lens_lines, lens_table
    from phaseprune.report.tables import trace_table
    from phaseprune.report.transition_words import phases_line
    from phaseprune.report.words import groups_line, input_lines, unequal_options_line
    from phaseprune.runs.directory import RunDirectory

    run = run_path(out, "trace", model, task)
    with screen.progress() as progress:
        traced = measure(
            decoder, questions, lens=lens, calibration=calibration, seed=seed, out=run,
            arguments=typed_command(), progress=progress,
        )  # fmt: skip
    report = write_report(run)
    result = traced.to_dict()
    if traced.state == "finished":
        screen.note(f"{run} was finished before; this is its result")
    screen.say(trace_table(result))
    screen.say(phases_line(result))
    if result.get("lens"):
        screen.say(lens_table(result))
        for line in lens_lines(result):
            screen.say(line)
    for line in (
        frequency_line(result), unequal_options_line(result), groups_line(result),
        *depth_lines(result),
    ):  # fmt: skip
        if line:
            screen.say(line)
    for line in input_lines(RunDirectory(run).manifest):
        screen.note(line)
    screen.say(f"report: {report}")
    screen.next(
        command_line(
            "prune", model, "--task", task, *prompt_words(settings, questions.scoring),
            "--keep-accuracy", 0.9,
        )
    )  # fmt: skip
    screen.result(result)
