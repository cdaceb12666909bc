"""``phaseprune similarity``."""

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
    prompt_words,
    run_path,
    task_name,
    task_settings,
    typed_command,
)


def similarity(
    model: o.Model,
    task: o.TaskName = None,
    scoring: o.Scoring = None,
    remove: Annotated[
        str | None,
        typer.Option("--remove", metavar="BLOCKS", help="The pruned model: original 0-based "
                     "indices of what it leaves out, as 3,7."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="RUN", help="Or a run of prune on this model and task: all "
                     "of its steps, on its evaluation questions."),
    ] = None,
    minibatch: Annotated[
        int | None,
        typer.Option("--minibatch", help="Questions of a minibatch of CKA. [default: a tenth, 8 to "
                     "64]"),
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
    """Compare a model with pruned ones: their hidden states (CKA) beside their decisions."""
    screen = Screen(as_json, quiet)
    task = task_name(model, task)
    settings = task_settings(locals())
    removed = block_list(remove) if remove is not None else None
    from phaseprune.probes.similarity import check_pruned_models

    check_pruned_models(removed, run)
    questions = load_questions(screen, task, limit, settings)
    decoder = load_checked(
        model, screen, device=device, dtype=dtype, revision=revision,
        trust_remote_code=trust_remote_code, blocks=blocks, stream=stream,
        max_memory=max_memory,
    )  # fmt: skip
    from phaseprune.probes.similarity import similarity as compare
    from phaseprune.report.html import write_report
    from phaseprune.report.similarity_words import similarity_lines, similarity_table
    from phaseprune.report.words import input_lines
    from phaseprune.runs.directory import RunDirectory

    path = run_path(out, "similarity", model, task)
    with screen.progress() as progress:
        found = compare(
            decoder, questions, remove=removed, run=run, minibatch=minibatch, seed=seed, out=path,
            arguments=typed_command(), progress=progress,
        )  # fmt: skip
    report = write_report(path)
    result = found.to_dict()
    if found.state == "finished":
        screen.note(f"{path} was finished before; this is its result")
    screen.say(similarity_table(result))
    for line in similarity_lines(result):
        screen.say(line)
    for line in input_lines(RunDirectory(path).manifest):
        screen.note(line)
    screen.say(f"report: {report}")
    following = command_line("report", path)
    if run is None:
        words = prompt_words(settings, questions.scoring)
        following = command_line("prune", model, "--task", task, *words, "--remove", len(removed))
    screen.next(following)
    screen.result(result)
