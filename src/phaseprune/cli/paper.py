"""``phaseprune paper``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from phaseprune.cli import options as o
from phaseprune.cli.execute import load_model, load_questions, run_path, task_name, typed_command
from phaseprune.cli.screen import Screen, command_line, name_list
from phaseprune.errors import UserError

#: Options that say how the model is loaded.
LOADING = tuple(one.name for one in fields(o.LoadingOptions))
#: Those of them that healing, which loads the model again, is told too.
AGAIN = ("revision", "trust_remote_code", "blocks")
#: Options that say which questions are asked, and how.
ASKING = tuple(one.name for one in fields(o.QuestionOptions) if one.name != "task")


@dataclass(frozen=True, kw_only=True)
class ExperimentOptions:
    """How large the experiments are: ``Settings``, where None leaves a default."""

    skip: Annotated[
        str | None,
        o.option(
            "--skip",
            "Leave out experiments: trace, lens, prune, similarity, perturb, "
            "ablate, phasewise, heal. They can be added later.",
            metavar="NAMES",
        ),
    ] = None
    calibration: o.Calibration = None
    evaluation: o.Evaluation = None
    probe: Annotated[
        int | None,
        o.option(
            "--probe", "How many of these perturb and ablate use.", o.QUESTIONS, default="100"
        ),
    ] = None
    remove: Annotated[
        int | None, o.option("--remove", "Blocks to remove.", o.SEARCH, default="0.8 of them")
    ] = None
    objective: Annotated[
        str | None,
        o.option(
            "--objective", "decision_margin, accuracy or loss.", o.SEARCH, default="decision_margin"
        ),
    ] = None
    search: Annotated[
        str | None, o.option("--search", "exact or racing.", o.SEARCH, default="exact")
    ] = None
    noise: Annotated[
        str | None, o.option("--noise", "Of perturb.", metavar="VARIANCES", default="its own eight")
    ] = None
    noise_seeds: Annotated[
        int | None, o.option("--noise-seeds", "Draws of noise.", default="3")
    ] = None
    ablation: Annotated[
        str | None, o.option("--ablation", "mean, swap or repeat.", default="mean")
    ] = None
    draws: Annotated[
        int | None,
        o.option("--draws", "Sets of phasewise, a kind and number.", default="10"),
    ] = None
    most: Annotated[
        int | None,
        o.option("--most", "Most blocks of a set.", default="as many as the smaller phase has"),
    ] = None
    ladder: Annotated[
        str | None,
        o.option(
            "--ladder", "Steps to heal.", o.TRAINING, metavar="STEPS", default="six, spread evenly"
        ),
    ] = None
    heal_steps: Annotated[
        int | None,
        o.option("--heal-steps", "Optimiser steps a depth.", o.TRAINING, default="200"),
    ] = None
    heal_batch: Annotated[
        int | None, o.option("--heal-batch", "Questions a step.", o.TRAINING, default="32")
    ] = None
    heal_seeds: Annotated[
        int | None, o.option("--heal-seeds", "Seeds a depth.", o.TRAINING, default="1")
    ] = None
    train: Annotated[
        str | None,
        o.option(
            "--train", "Training questions.", o.TRAINING, metavar="FILE", default="the task's own"
        ),
    ] = None


@o.command
def paper(
    context: typer.Context,
    loading: o.LoadingOptions,
    questions: o.TasksOptions,
    experiments: ExperimentOptions,
    output: o.RunOptions,
    model: Annotated[str | None, o.argument("MODEL", "As of trace.", "that of --config")] = None,
    config: Annotated[
        Path | None,
        o.option(
            "--config",
            "A YAML file with model, tasks and any of these options by name; what "
            "is typed goes before it.",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """All experiments of the paper on a model, and one report that is held against its claims.

    Each is a run of its own below OUT/TASK; a stopped one goes on with the same command.
    """
    screen = Screen(output.as_json, output.quiet)
    given = {
        "model": model,
        "out": output.out,
        **loading.keywords(),
        **questions.keywords(),
        **vars(experiments),
    }
    model, tasks, options = _options(context, config, questions.task, given)
    from phaseprune.replication.page import write_paper_report
    from phaseprune.replication.paper import paper as run_paper
    from phaseprune.replication.settings import settings_of
    from phaseprune.replication.words import paper_view

    settings = [settings_of(own) for own in tasks.values()]
    asked = [
        load_questions(screen, name, {key: own[key] for key in ASKING})
        for name, own in tasks.items()
    ]
    decoder = load_model(screen, model, {key: options[key] for key in LOADING})
    out = options["out"]
    run = Path(out) if out else run_path(None, "paper", model, [*tasks][0])
    with screen.progress() as progress:
        found = run_paper(
            decoder,
            asked,
            out=run,
            settings=settings,
            seed=options["seed"],
            loading={key: options[key] for key in AGAIN},
            arguments=typed_command(),
            note=screen.note,
            progress=progress,
        )
    report = write_paper_report(run)
    result = found.to_dict()
    if found.state == "finished":
        screen.note(f"{run} was finished before; what was done is not done again")
    screen.show(paper_view(result).terminal())
    screen.say(f"claims: {run / 'claims.md'}")
    first = found.tasks[0]
    screen.end(
        result,
        command_line("report", first.folder / "prune"),
        command_line("report", run),
        report=report,
    )


def configuration(config: Path | None):
    """What ``--config`` says (``paper.settings.Configuration``); nothing for None."""
    from phaseprune.replication.settings import Configuration, Settings, read_configuration

    if config is None:
        return Configuration()
    of_tasks = [name for name in ASKING if name != "seed"]
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
        names = name_list(task_name(model, task), "--task")
        if len(set(names)) < len(names):
            raise UserError(f"--task {task} names a task twice; name each task once")
        own = {name: read.tasks.get(name, {}) for name in names}
    options = given | read.options | typed
    return model, {name: options | settings | typed for name, settings in own.items()}, options
