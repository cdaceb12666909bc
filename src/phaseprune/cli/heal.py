"""``phaseprune heal``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from phaseprune.cli import options as o
from phaseprune.cli.execute import typed_command
from phaseprune.cli.screen import Screen, command_line, number_list
from phaseprune.errors import UserError


@dataclass(frozen=True, kw_only=True)
class HealingOptions:
    """How a model is healed: the keywords that ``heal`` and ``heal_ladder`` share."""

    method: Annotated[str, o.option("--method", "lora (adapters, merged at the end) or full.")] = (
        "lora"
    )
    objective: Annotated[
        str,
        o.option(
            "--objective",
            "task: the gold option of training questions; text: plain text; "
            "distill: the full model's output distribution on either.",
        ),
    ] = "task"
    train: Annotated[
        Path | None,
        o.option(
            "--train",
            "Training questions.",
            metavar="FILE",
            default="the task's own: bundled, or a benchmark's training split",
        ),
    ] = None
    text: Annotated[
        Path | None,
        o.option(
            "--text", "Plain text to train on, with --objective text or distill.", metavar="FILE"
        ),
    ] = None
    drop_overlap: Annotated[
        bool,
        o.option(
            "--drop-overlap",
            "Leave out training questions that are among the run's. They are refused without.",
        ),
    ] = False
    steps: Annotated[int, o.option("--steps", "Optimiser steps at most.", o.TRAINING)] = 500
    lr: Annotated[
        float | None,
        o.option(
            "--lr", "Peak learning rate.", o.TRAINING, default="0.002 for lora, 0.0002 for full"
        ),
    ] = None
    batch: Annotated[
        int, o.option("--batch", "Questions, or windows of text, a step.", o.TRAINING)
    ] = 32
    rank: Annotated[int, o.option("--rank", "Of the LoRA adapters.", o.TRAINING)] = 16
    minutes: Annotated[
        float | None,
        o.option("--minutes", "End training of a model after that time.", o.TRAINING),
    ] = None
    check_every: Annotated[
        int | None,
        o.option(
            "--check-every",
            "Steps between evaluations on the validation split, when the state is kept too.",
            o.TRAINING,
            default="a twentieth of --steps",
        ),
    ] = None
    patience: Annotated[
        int,
        o.option("--patience", "Stop after so many evaluations without a better loss.", o.TRAINING),
    ] = 8
    seed: Annotated[
        int,
        o.option("--seed", "Of adapters, validation split and order of the batches.", o.TRAINING),
    ] = 0
    model: Annotated[
        str | None,
        o.option(
            "--model",
            "Where the run's full model is now.",
            o.HARDWARE,
            metavar="MODEL",
            default="where it was",
        ),
    ] = None
    device: o.Device = "auto"
    dtype: Annotated[
        str,
        o.option("--dtype", "float32 or bfloat16; auto is that of the run.", o.HARDWARE),
    ] = "auto"
    revision: o.Revision = None
    trust_remote_code: o.TrustRemoteCode = False
    blocks: o.Blocks = None
    name: Annotated[
        str | None,
        o.option(
            "--name", "Of the directory RUN/heal/NAME.", o.OUTPUT, default="one for these options"
        ),
    ] = None


@o.command
def heal(
    healing: HealingOptions,
    output: o.OutputOptions,
    run: Annotated[Path, o.argument("RUN", "A finished run of prune.")],
    step: Annotated[
        int | None, o.option("--step", "Which step of the run.", default="the chosen one")
    ] = None,
    ladder: Annotated[
        str | None,
        o.option(
            "--ladder",
            "Heal several steps alike, as 2,4,6, for the recovery curve; 0 is the full model.",
            metavar="STEPS",
        ),
    ] = None,
    seeds: Annotated[
        int, o.option("--seeds", "Of a ladder: heal each depth with so many seeds.")
    ] = 1,
) -> None:
    """Fine-tune a pruned model, and say how much of it comes back.

    It is trained on other questions than the run's, measured on the run's evaluation questions
    before and after, and exported. Healing that was stopped goes on with the same command.
    """
    screen = Screen(output.as_json, output.quiet)
    if ladder is not None and step is not None:
        raise UserError("--step and --ladder both say what to heal; give one of them")
    if ladder is None and seeds != 1:
        raise UserError("--seeds is for a --ladder; for one model give --seed")
    wanted = vars(healing) | {"arguments": typed_command()}
    levels = (
        None if ladder is None else number_list(ladder, "--ladder", "be steps of the run, as 2,4,6")
    )
    from phaseprune.decoder.load import silence_transformers

    silence_transformers()
    if levels is None:
        _one(screen, run, step, wanted)
    else:
        _several(screen, run, levels, seeds, wanted)


def _one(screen: Screen, run: Path, step: int | None, wanted: dict[str, Any]) -> None:
    from phaseprune.healing.heal import heal
    from phaseprune.report.heal import healing_view
    from phaseprune.report.page import write_report

    with screen.progress() as progress:
        healing = heal(run, step=step, progress=progress, **wanted)
    screen.note_state(healing.state, healing.path)
    result = healing.to_dict()
    screen.show(healing_view(result).terminal())
    screen.end(
        result,
        command_line("heal", run, "--ladder", "STEPS"),
        command_line("trace", result["export"]["path"], "--task", "TASK"),
        report=write_report(healing.path),
    )


def _several(
    screen: Screen, run: Path, levels: list[int], seeds: int, wanted: dict[str, Any]
) -> None:
    from phaseprune.healing.ladder import heal_ladder
    from phaseprune.report.heal import ladder_view
    from phaseprune.report.page import write_report

    with screen.progress() as progress:
        ladder = heal_ladder(run, levels, seeds=seeds, progress=progress, **wanted)
    screen.note_state(ladder.state, ladder.path)
    result = ladder.to_dict()
    screen.show(ladder_view(result).terminal())
    best = max(result["depths"], key=lambda row: row["retained_after"]["value"] or 0)
    screen.end(
        result,
        command_line("trace", f"{best['paths'][0]}/model", "--task", "TASK"),
        report=write_report(ladder.path),
    )
