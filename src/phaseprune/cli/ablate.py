"""``phaseprune ablate``."""

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


def ablate(
    model: o.Model,
    task: o.TaskName = None,
    scoring: o.Scoring = None,
    kind: Annotated[
        str,
        typer.Option("--kind", help="mean: the mean of a block's contribution in its place; swap: "
                     "a block after the next one; repeat: a block twice."),
    ] = "mean",
    calibration: Annotated[
        int | None,
        typer.Option("--calibration", help="Questions that means are taken on. [default: a third, "
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
    """Ablate each block in turn, beside its removal: mean, swap with the next one, repetition.

    All blocks in one walk. The figures are of evaluation questions; a run that was stopped goes on
    with the same command.
    """
    screen = Screen(as_json, quiet)
    task = task_name(model, task)
    settings = task_settings(locals())
    from phaseprune.probes.ablation import ablate as ablate_model
    from phaseprune.probes.ablation import check_kind

    check_kind(kind)
    questions = load_questions(screen, task, limit, settings)
    decoder = load_checked(
        model, screen, device=device, dtype=dtype, revision=revision,
        trust_remote_code=trust_remote_code, blocks=blocks, stream=stream,
        max_memory=max_memory,
    )  # fmt: skip
    from phaseprune.report.ablation_tables import ablation_sentences, ablation_table
    from phaseprune.report.html import write_report
    from phaseprune.report.transition_words import phases_line
    from phaseprune.report.words import input_lines
    from phaseprune.runs.directory import RunDirectory

    run = run_path(out, "ablate", model, task)
    with screen.progress() as progress:
        ablated = ablate_model(
            decoder, questions, kind=kind, calibration=calibration, evaluation=evaluation,
            seed=seed, out=run, arguments=typed_command(), progress=progress,
        )  # fmt: skip
    report = write_report(run)
    result = ablated.to_dict()
    if ablated.state == "finished":
        screen.note(f"{run} was finished before; this is its result")
    screen.say(ablation_table(result))
    for line in (phases_line(ablated.trace.to_dict()), *ablation_sentences(result)):
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
