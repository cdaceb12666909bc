"""``phaseprune plan``."""

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


def plan(
    model: o.Model,
    task: o.TaskName = None,
    scoring: o.Scoring = None,
    protect: Annotated[
        str | None,
        typer.Option("--protect", metavar="BLOCKS", help="Blocks that are never in the order, as "
                     "0,1,29."),
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
    """Say how many blocks could go, and which first, from one run of the full model.

    A prediction: nothing is removed. All questions are looked at; report on others.
    """
    screen = Screen(as_json, quiet)
    task = task_name(model, task)
    settings = task_settings(locals())
    protected = block_list(protect, "--protect") if protect is not None else []

    questions = load_questions(screen, task, limit, settings)
    decoder = load_checked(
        model, screen, device=device, dtype=dtype, revision=revision,
        trust_remote_code=trust_remote_code, blocks=blocks, stream=stream,
        max_memory=max_memory,
    )  # fmt: skip
    from phaseprune.methods.plan import plan as plan_model
    from phaseprune.report.html import write_report
    from phaseprune.report.plan_words import plan_lines, plan_table
    from phaseprune.report.transition_words import phases_line
    from phaseprune.report.words import input_lines
    from phaseprune.runs.directory import RunDirectory

    run = run_path(out, "plan", model, task)
    with screen.progress() as progress:
        planned = plan_model(
            decoder, questions, protect=protected, seed=seed, out=run, arguments=typed_command(),
            progress=progress,
        )  # fmt: skip
    report = write_report(run)
    result = planned.to_dict()
    if planned.state == "finished":
        screen.note(f"{run} was finished before; this is its result")
    screen.say(plan_table(result))
    for line in (phases_line(planned.trace.to_dict()), *plan_lines(result)):
        screen.say(line)
    for line in input_lines(RunDirectory(run).manifest):
        screen.note(line)
    screen.say(f"report: {report}")
    words = ["prune", model, "--task", task, *prompt_words(settings, questions.scoring)]
    kept = ["--protect", ",".join(map(str, protected))] if protected else []
    count = planned.budget or 1
    following = [command_line(*words, "--method", "planned", "--remove", count, *kept)]
    if planned.trace.transition.found:  # the search that keeps to Decisive blocks
        following.append(command_line(*words, "--remove", count, "--among", "decisive", *kept))
    screen.next(*following)
    screen.result(result)
