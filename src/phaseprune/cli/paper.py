"""``phaseprune paper``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from phaseprune.cli import options as o
from phaseprune.cli.console import (
    Screen,
    command_line,
    load_checked,
    load_questions,
    run_path,
    task_name,
    task_settings,
    typed_command,
)
from phaseprune.errors import UserError

#: Options that say how the model is loaded.
LOADING = ("device", "dtype", "revision", "trust_remote_code", "blocks", "stream", "max_memory")
#: Those of them that healing, which loads the model again, is told too.
AGAIN = ("revision", "trust_remote_code", "blocks")


def paper(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="As of trace. [default: that of --config]",
                       show_default=False),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option("--task", metavar="TASKS", help="One task or several, as arc_easy,piqa."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="A YAML file with model, tasks and any of "
                     "these options by name; what is typed goes before it."),
    ] = None,
    skip: Annotated[
        str | None,
        typer.Option("--skip", metavar="NAMES", help="Leave out experiments: trace, lens, prune, "
                     "similarity, perturb, ablate, phasewise, heal. They can be added later."),
    ] = None,
    calibration: Annotated[
        int | None,
        typer.Option("--calibration", help="Questions to choose blocks on. [default: a third, "
                     "up to 64]"),
    ] = None,
    evaluation: Annotated[
        int | None,
        typer.Option("--evaluation", help="Other questions to report on. [default: all others]"),
    ] = None,
    probe: Annotated[
        int | None,
        typer.Option("--probe", help="How many of these perturb and ablate use. [default: 100]"),
    ] = None,
    remove: Annotated[
        int | None, typer.Option("--remove", help="Blocks to remove. [default: 0.8 of them]")
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option("--objective", help="decision_margin, accuracy or loss. [default: "
                     "decision_margin]"),
    ] = None,
    search: Annotated[
        str | None, typer.Option("--search", help="exact or racing. [default: exact]")
    ] = None,
    noise: Annotated[
        str | None,
        typer.Option("--noise", metavar="VARIANCES", help="Of perturb. [default: its own eight]"),
    ] = None,
    noise_seeds: Annotated[
        int | None, typer.Option("--noise-seeds", help="Draws of noise. [default: 3]")
    ] = None,
    ablation: Annotated[
        str | None, typer.Option("--ablation", help="mean, swap or repeat. [default: mean]")
    ] = None,
    draws: Annotated[
        int | None, typer.Option("--draws", help="Sets of phasewise, a kind and number. "
                                 "[default: 10]")
    ] = None,
    most: Annotated[
        int | None, typer.Option("--most", help="Most blocks of a set. [default: as many as the "
                                 "smaller phase has]")
    ] = None,
    ladder: Annotated[
        str | None,
        typer.Option("--ladder", metavar="STEPS", help="Steps to heal. [default: six, spread "
                     "evenly]"),
    ] = None,
    heal_steps: Annotated[
        int | None, typer.Option("--heal-steps", help="Optimiser steps a depth. [default: 200]")
    ] = None,
    heal_batch: Annotated[
        int | None, typer.Option("--heal-batch", help="Questions a step. [default: 32]")
    ] = None,
    heal_seeds: Annotated[
        int | None, typer.Option("--heal-seeds", help="Seeds a depth. [default: 1]")
    ] = None,
    train: Annotated[
        str | None,
        typer.Option("--train", metavar="FILE", help="Training questions. [default: the task's "
                     "own]"),
    ] = None,
    scoring: o.Scoring = None,
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
    """All experiments of the paper on a model, and one report that is held against its claims.

    Each is a run of its own below OUT/TASK; a stopped one goes on with the same command.
    """
    screen = Screen(as_json, quiet)
    given = {k: v for k, v in locals().items() if k not in ("context", "screen", "config", "task")}
    model, tasks, options = _options(context, config, task, given)
    from phaseprune.replication.page import write_paper_report
    from phaseprune.replication.paper import paper as run_paper
    from phaseprune.replication.settings import settings_of
    from phaseprune.replication.words import claims_table, left_out_lines, summary_line

    settings = [settings_of(own) for own in tasks.values()]
    questions = [
        load_questions(screen, name, own.get("limit"), task_settings(own))
        for name, own in tasks.items()
    ]
    loading = {name: options[name] for name in LOADING if name in options}
    decoder = load_checked(model, screen, **loading)
    run = (
        Path(options["out"]) if options.get("out") else run_path(None, "paper", model, [*tasks][0])
    )
    with screen.progress() as progress:
        found = run_paper(
            decoder, questions, out=run, settings=settings, seed=options["seed"],
            loading={name: loading[name] for name in AGAIN if name in loading},
            arguments=typed_command(), note=screen.note, progress=progress,
        )  # fmt: skip
    report = write_paper_report(run)
    result = found.to_dict()
    if found.state == "finished":
        screen.note(f"{run} was finished before; what was done is not done again")
    screen.say(claims_table(result))
    screen.say(summary_line(result))
    for line in left_out_lines(result):
        screen.say(line)
    screen.say(f"claims: {run / 'claims.md'}")
    screen.say(f"report: {report}")
    first = found.tasks[0]
    screen.next(command_line("report", first.folder / "prune"), command_line("report", run))
    screen.result(result)


def configuration(config: Path | None):
    """What ``--config`` says (``paper.settings.Configuration``); nothing for None."""
    from dataclasses import fields

    from phaseprune.option_types import option_types
    from phaseprune.questions.catalog import load_task
    from phaseprune.replication.settings import Configuration, Settings, read_configuration

    if config is None:
        return Configuration()
    of_tasks = [name for name in option_types(load_task) if name != "seed"]
    of_tasks += [one.name for one in fields(Settings)]
    return read_configuration(config, [*of_tasks, *LOADING, "out", "seed"], of_tasks)


def _options(
    context: typer.Context, config: Path | None, task: str | None, given: dict[str, Any]
) -> tuple[str, dict[str, dict[str, Any]], dict[str, Any]]:
    """Model, tasks with all their options, and the options of the run.

    What is typed goes before what the configuration says of a task, that before what it says of
    all tasks, and that before the defaults.
    """
    read = configuration(config)
    typed = {
        name: value
        for name, value in given.items()
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }
    model = given["model"] or read.model
    if model is None:
        raise UserError("name a model, or give --config FILE with one")
    own = dict(read.tasks) if task is None else {}
    if not own:
        names = [part.strip() for part in task_name(model, task).split(",") if part.strip()]
        if len(set(names)) < len(names):
            raise UserError(f"--task {task} names a task twice; name each task once")
        own = {name: read.tasks.get(name, {}) for name in names}
    options = given | read.options | typed
    return model, {name: options | settings | typed for name, settings in own.items()}, options
