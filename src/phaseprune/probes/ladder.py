"""The pruned models of a run of ``prune``: a ladder, each without one block more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from phaseprune.decoder.decoder import Decoder
from phaseprune.errors import UserError
from phaseprune.questions.question import Task
from phaseprune.questions.split import split
from phaseprune.runs.directory import RunDirectory, model_difference
from phaseprune.runs.folders import refuse_several


@dataclass(frozen=True)
class Ladder:
    """The steps of a run.

    Attributes:
        path: the run.
        removed: blocks in order of removal; step s has removed the first s.
        evaluation: the questions that the run reports on, not chosen by.
        chosen_step: the run's chosen step, None while it is not finished.
    """

    path: Path
    removed: tuple[int, ...]
    evaluation: Task
    chosen_step: int | None


def read_ladder(path: str | Path, decoder: Decoder, task: Task) -> Ladder:
    """Read the pruned models of a run, and draw its evaluation questions again.

    Args:
        path: the run directory of ``prune``.
        decoder: must be the model that the run pruned.
        task: must be the questions of the run, put in the same way, all of them.

    Raises:
        UserError: no run of ``prune`` with a finished step, or one of another model or questions.
    """
    run = RunDirectory(Path(path))
    manifest = run.manifest
    refuse_several(path, manifest, "similarity")
    if manifest.get("command") != "prune":
        raise UserError(
            f"{path} is a run of {manifest.get('command')}, which removes no blocks; give one of "
            "prune"
        )
    if granularity := manifest["options"].get("granularity"):
        raise UserError(
            f"{path} removed halves of blocks (--granularity={granularity}), "
            "and similarity compares models without whole blocks; give a run of these"
        )
    if difference := model_difference(manifest["model"], decoder.source.identity):
        raise UserError(
            f"{decoder.name} is not the base model of {path}, which pruned "
            f"{manifest['model']['name']}: {difference}; give that model"
        )
    steps = run.steps()
    if len(steps) < 2:
        raise UserError(f"{path} has no finished pruning step; run the same prune command again")
    if any(step.get("merged") for step in steps):
        raise UserError(
            f"{path} merged blocks into others, and models whose weights changed are not compared "
            "with the full one here; give a run of another method"
        )
    now = task.identity | {"prompt_format": task.prompt_format}
    then = manifest["task"] | {"prompt_format": manifest["prompt_format"]}
    differs = next((name for name in now if name != "name" and now[name] != then.get(name)), None)
    if differs:
        raise UserError(
            f"{path} was made with other questions: their {differs} was {then.get(differs)} and "
            f"now is {now[differs]}; give --task, --limit, --seed and prompt options as in its "
            f"command: {manifest.get('arguments')}"
        )
    options = manifest["options"]
    _, evaluation = split(
        task, options["calibration_questions"], options["evaluation_questions"], manifest["seed"]
    )
    return Ladder(
        Path(path),
        tuple(step["removed"] for step in steps[1:]),
        evaluation,
        (manifest.get("result") or {}).get("chosen_step"),
    )
