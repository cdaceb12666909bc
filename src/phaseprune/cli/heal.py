"""``phaseprune heal``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from phaseprune.cli import options as o
from phaseprune.cli.console import Screen, command_line, typed_command
from phaseprune.errors import UserError


def heal(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A finished run of prune.", show_default=False)
    ],
    method: Annotated[
        str, typer.Option("--method", help="lora (adapters, merged at the end) or full.")
    ] = "lora",
    objective: Annotated[
        str,
        typer.Option("--objective", help="task: the gold option of training questions; text: plain "
                     "text; distill: the full model's output distribution on either."),
    ] = "task",
    step: Annotated[
        int | None, typer.Option("--step", help="Which step of the run. [default: the chosen one]")
    ] = None,
    ladder: Annotated[
        str | None,
        typer.Option("--ladder", metavar="STEPS", help="Heal several steps alike, as 2,4,6, for "
                     "the recovery curve; 0 is the full model."),
    ] = None,
    seeds: Annotated[
        int, typer.Option("--seeds", help="Of a ladder: heal each depth with so many seeds.")
    ] = 1,
    train: Annotated[
        Path | None,
        typer.Option("--train", metavar="FILE", help="Training questions. [default: the task's "
                     "own: bundled, or a benchmark's training split]"),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option("--text", metavar="FILE", help="Plain text to train on, with --objective text "
                     "or distill."),
    ] = None,
    drop_overlap: Annotated[
        bool,
        typer.Option("--drop-overlap", help="Leave out training questions that are among the "
                     "run's. [default: refuse them]"),
    ] = False,
    steps: Annotated[int, typer.Option("--steps", help="Optimiser steps at most.")] = 500,
    lr: Annotated[
        float | None,
        typer.Option("--lr", help="Peak step size. [default: 0.002 for lora, 0.0002 for full]"),
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", help="Questions, or windows of text, a step.")
    ] = 32,
    rank: Annotated[int, typer.Option("--rank", help="Of the LoRA adapters.")] = 16,
    minutes: Annotated[
        float | None, typer.Option("--minutes", help="End training of a model after that time.")
    ] = None,
    check_every: Annotated[
        int | None,
        typer.Option("--check-every", help="Steps between looks at the held-out part, where the "
                     "state is kept too. [default: a twentieth of --steps]"),
    ] = None,
    patience: Annotated[
        int, typer.Option("--patience", help="Stop after so many looks without a better loss.")
    ] = 8,
    seed: Annotated[
        int, typer.Option("--seed", help="Of adapters, held-out part and order of the batches.")
    ] = 0,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="Where the run's full model is now. "
                     "[default: where it was]"),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Of the directory RUN/heal/NAME. [default: one for these "
                     "options]"),
    ] = None,
    device: o.Device = "auto",
    dtype: Annotated[
        str, typer.Option("--dtype", help="float32 or bfloat16. [default: that of the run]")
    ] = "auto",
    revision: o.Revision = None,
    trust_remote_code: o.TrustRemoteCode = False,
    blocks: o.Blocks = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:  # fmt: skip
    """Fine-tune a pruned model, and say how much of it comes back.

    It is trained on other questions than the run's, measured on the run's evaluation questions
    before and after, and exported. Healing that was stopped goes on with the same command.
    """
    screen = Screen(as_json, quiet)
    if ladder is not None and step is not None:
        raise UserError("--step and --ladder both say what to heal; give one of them")
    if ladder is None and seeds != 1:
        raise UserError("--seeds is for a --ladder; for one model give --seed")
    wanted: dict[str, Any] = dict(
        method=method, objective=objective, steps=steps, lr=lr, batch=batch, rank=rank,
        minutes=minutes, check_every=check_every, patience=patience, seed=seed, train=train,
        text=text, drop_overlap=drop_overlap, model=model, name=name, device=device, dtype=dtype,
        revision=revision, trust_remote_code=trust_remote_code, blocks=blocks,
        arguments=typed_command(),
    )  # fmt: skip
    levels = None if ladder is None else _steps(ladder)
    from phaseprune.decoder.load import silence_transformers

    silence_transformers()
    if levels is None:
        _one(screen, run, step, wanted)
    else:
        _several(screen, run, levels, seeds, wanted)


def _one(screen: Screen, run: Path, step: int | None, wanted: dict[str, Any]) -> None:
    from phaseprune.healing.heal import heal
    from phaseprune.report import heal_words as words
    from phaseprune.report.heal_tables import healing_table
    from phaseprune.report.html import write_report

    with screen.progress() as progress:
        healing = heal(run, step=step, progress=progress, **wanted)
    result = healing.to_dict()
    report = write_report(healing.path)
    _say_state(screen, healing.state, healing.path)
    screen.say(healing_table(result))
    for line in words.healing_lines(result):
        screen.say(line)
    screen.say(f"report: {report}")
    screen.next(
        command_line("heal", run, "--ladder", "STEPS"),
        command_line("trace", result["export"]["path"], "--task", "TASK"),
    )
    screen.result(result)


def _several(
    screen: Screen, run: Path, levels: list[int], seeds: int, wanted: dict[str, Any]
) -> None:
    from phaseprune.healing.ladder import heal_ladder
    from phaseprune.report import heal_words as words
    from phaseprune.report.heal_tables import ladder_table
    from phaseprune.report.html import write_report

    with screen.progress() as progress:
        ladder = heal_ladder(run, levels, seeds=seeds, progress=progress, **wanted)
    result = ladder.to_dict()
    report = write_report(ladder.path)
    _say_state(screen, ladder.state, ladder.path)
    screen.say(ladder_table(result))
    for line in words.ladder_lines(result):
        screen.say(line)
    screen.say(f"report: {report}")
    best = max(result["depths"], key=lambda row: row["retained_after"]["value"] or 0)
    screen.next(command_line("trace", f"{best['paths'][0]}/model", "--task", "TASK"))
    screen.result(result)


def _say_state(screen: Screen, state: str, path: str) -> None:
    if state == "finished":
        screen.note(f"{path} was finished before; this is its result")


def _steps(text: str) -> list[int]:
    try:
        return [int(part) for part in text.replace(" ", ",").split(",") if part]
    except ValueError:
        raise UserError(f"--ladder {text!r} must be steps of the run, as 2,4,6") from None
