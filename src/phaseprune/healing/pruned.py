"""The pruning run that is healed: which blocks, which questions, which full model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from phaseprune.decision.decisions import read_right
from phaseprune.decision.laco import read_mixtures
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.export import export, is_a_part
from phaseprune.decoder.load import load_model
from phaseprune.decoder.source import find_source
from phaseprune.errors import UserError
from phaseprune.option_types import option_types
from phaseprune.questions.catalog import load_task
from phaseprune.questions.given import GIVEN
from phaseprune.questions.question import Question, Task
from phaseprune.questions.split import split
from phaseprune.runs.directory import RunDirectory, model_difference
from phaseprune.runs.folders import refuse_several
from phaseprune.runs.leftovers import SCRATCH


@dataclass(frozen=True)
class PrunedRun:
    """A finished run of ``prune``.

    Attributes:
        directory: where it is.
        manifest: its manifest.
        steps: its steps, the first of the full model.
        evaluation: the questions that it reports on.
        calibration: the questions that its blocks were chosen on.
        model: where its full model is now.
    """

    directory: RunDirectory
    manifest: dict[str, Any]
    steps: list[dict[str, Any]]
    evaluation: Task
    calibration: Task
    model: str

    @property
    def blocks(self) -> int:
        """L, of the full model."""
        return self.manifest["model"]["blocks"]

    @property
    def scored(self) -> list[Question]:
        """The questions that must never be trained on."""
        return [*self.calibration.questions, *self.evaluation.questions]

    @property
    def full_correct(self) -> np.ndarray:
        """``[Q]`` whether the full model is right on each evaluation question."""
        return self.correct(0)

    def correct(self, step: int) -> np.ndarray:
        """``[Q]`` whether the model of a step is right on each evaluation question."""
        return read_right(self.steps[step]["evaluation"]["correct"])

    def removed(self, step: int) -> list[int]:
        """Blocks removed up to a step, original indices in order of removal."""
        return [line["removed"] for line in self.steps[1 : step + 1]]

    def merged(self, step: int) -> dict[str, dict[str, int]] | None:
        """What blocks of a step are a sum of that took others in; None where none did."""
        return self.steps[step].get("merged")

    def kept(self, step: int) -> list[int]:
        """The others, in order."""
        return sorted(set(range(self.blocks)) - set(self.removed(step)))

    def check_step(self, step: int) -> None:
        """Refuse a step that cannot be healed.

        Raises:
            UserError: there is no such step, it leaves no block, or its blocks cannot be.
        """
        if not 0 <= step < len(self.steps):
            raise UserError(
                f"{self.directory.path} has steps 0 to {len(self.steps) - 1}, and no step {step}"
            )
        removed = self.removed(step)
        if len(set(removed)) < len(removed) or not set(removed) <= set(range(self.blocks)):
            raise UserError(
                f"{self.directory.path / 'steps.jsonl'} is damaged: a model of {self.blocks} "
                f"blocks cannot lose {', '.join(map(str, removed))}; give prune again"
            )
        if not self.kept(step):
            raise UserError(
                f"{self.directory.path}: step {step} removes all {self.blocks} blocks, and nothing "
                "is left to heal; give an earlier --step"
            )


def open_run(path: str | Path, model: str | None = None, revision: str | None = None) -> PrunedRun:
    """Read a run and load its questions again; no weights are read but for their fingerprint.

    Args:
        path: the run directory.
        model: where its full model is now; by default where it was.
        revision: of a hub model.

    Raises:
        UserError: it is no finished run of prune, its questions are no longer the same, or the full
            model cannot be found or is another one.
    """
    directory = RunDirectory(Path(path))
    manifest, steps = directory.manifest, directory.steps()
    refuse_several(path, manifest, "heal")
    if manifest["command"] != "prune":
        raise UserError(
            f"{path} is a run of {manifest['command']}, which removes no blocks; give one of prune"
        )
    if granularity := manifest["options"].get("granularity"):
        raise UserError(
            f"{path} removed halves of blocks (--granularity={granularity}), "
            "which are zeros that fine-tuning would fill again; heal a run of whole blocks"
        )
    if manifest["status"] != "finished" or not steps:
        raise UserError(
            f"{path} is not finished (it is {manifest['status']}); give its command again first: "
            f"{manifest['arguments'] or 'phaseprune prune …'}"
        )
    calibration, evaluation = _questions(path, manifest)
    name = _check_model(path, manifest, model, revision)
    return PrunedRun(directory, manifest, steps, evaluation, calibration, name)


def _questions(path: str | Path, manifest: dict[str, Any]) -> tuple[Task, Task]:
    """The calibration and evaluation questions, drawn as the run drew them."""
    told = manifest["task"]
    if (manifest.get("task_settings") or {}).get(GIVEN):
        raise UserError(
            f"the questions of {path} were given in Python, and healing loads them again; write "
            "them to a file of questions and prune with that"
        )
    settings = manifest.get("task_settings") or {
        name: told[name] for name in ("scoring", "length_norm", "probability")
    }
    try:
        if unknown := {*settings} - {*option_types(load_task)}:
            raise UserError(f"manifest.json gives them an unknown option, {min(unknown)!r}")
        task = load_task(told["name"], **settings)
    except UserError as error:
        raise UserError(f"the questions of {path} cannot be loaded again: {error.typed}") from None
    differ = [key for key, value in task.identity.items() if value != told.get(key)]
    if task.prompt_format != manifest["prompt_format"]:
        differ.append("prompt format")
    if differ:
        raise UserError(
            f"the questions of {told['name']} are not those of {path} (another {differ[0]}); they "
            "have changed since, so give prune again"
        )
    return split(
        task, manifest["calibration_questions"], manifest["evaluation_questions"], manifest["seed"]
    )


def _check_model(
    path: str | Path, manifest: dict[str, Any], model: str | None, revision: str | None
) -> str:
    """The name of the full model, found and unchanged."""
    told = manifest["model"]
    if told.get("in_memory"):
        raise UserError(
            f"the full model of {path} was given in memory, and healing loads it again; save it "
            "with save_pretrained and prune that directory"
        )
    name = model or told["name"]
    try:
        identity = find_source(name, revision).identity
    except UserError as error:
        hint = "" if model else "; if it is elsewhere now, say where with --model"
        raise UserError(f"the full model of {path} cannot be found: {error.typed}{hint}") from None
    if difference := model_difference(told, identity):
        raise UserError(
            f"{name} is not the full model of {path}: {difference}; give that model with --model"
        )
    return name


def load_full(run: PrunedRun, **options: Any) -> Decoder:
    """The full model, whole in memory, as training needs it."""
    return load_model(run.model, stream=False, **options)


@contextmanager
def shortened(
    full: Decoder, run: PrunedRun, step: int, dtype: str, beside: Path | None = None
) -> Iterator[Decoder]:
    """The really shortened model of a step, loaded from a temporary export that was proved.

    Args:
        full: the full model.
        run: the pruning run.
        step: which of its steps; 0 is a copy of the full model.
        dtype: that it is loaded in.
        beside: the run directory that the export is made in for the while, so that the next command
            there clears what a killed one left; by default the system's folder of temporary files.
    """
    with TemporaryDirectory(prefix=SCRATCH, dir=beside) as scratch:
        folder = Path(scratch) / "model"
        export(full, run.removed(step), folder, merged=read_mixtures(run.merged(step)))
        decoder = load_model(
            str(folder),
            device=str(full.device),
            dtype=dtype,
            stream=False,
            trust_remote_code=type(full.config).__module__.startswith("transformers_modules"),
        )
        if is_a_part(decoder):
            raise UserError(
                f"{full.name}: only a part of this checkpoint is loaded (its text part), and a "
                "healed part cannot be exported; heal a checkpoint of the text model alone"
            )
        decoder.name = f"{full.name} without {len(run.removed(step))} blocks"
        yield decoder
