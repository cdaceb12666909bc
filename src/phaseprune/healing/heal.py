"""``heal``: fine-tune one model of a pruning run, in a directory that can be gone on with."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.export import Export, export
from phaseprune.decoder.load import DTYPES, load_model
from phaseprune.decoder.trainable import trainable
from phaseprune.errors import UserError
from phaseprune.healing.pruned import load_full, shortened
from phaseprune.healing.recipe import Recipe
from phaseprune.healing.result import Healing, Measured, read_measured, write_measured
from phaseprune.healing.sources import Sources, prepare_sources
from phaseprune.healing.state import State
from phaseprune.healing.train import Trainer, train
from phaseprune.progress import Progress, silent
from phaseprune.questions.question import Task
from phaseprune.runs.atomic import write_json
from phaseprune.runs.directory import RunDirectory
from phaseprune.sweep.trace import trace


def heal(
    run: str | Path,
    *,
    step: int | None = None,
    train: str | Path | None = None,
    text: str | Path | None = None,
    drop_overlap: bool = False,
    name: str | None = None,
    model: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    blocks: str | None = None,
    arguments: str | None = None,
    progress: Progress = silent,
    **recipe: Any,
) -> Healing:
    """Fine-tune a pruned model, report on the run's evaluation questions, export and prove it.

    Args:
        run: the directory of a finished ``prune``.
        step: which of its steps; by default the chosen one. 0 is the full model.
        train: a file of training questions; by default the task's own.
        text: a file of plain text, for the objectives ``text`` and ``distill``.
        drop_overlap: leave training questions out that are among the run's; by default refused.
        name: of the directory RUN/heal/NAME; by default made from step and recipe.
        model: where the run's full model is now.
        device: as of ``load_model``.
        dtype: as of ``load_model``; ``auto`` is that of the run.
        revision: of a hub model.
        trust_remote_code: run the checkpoint's own code; never unless asked.
        blocks: module path of the list of blocks.
        arguments: the command line, for the manifest.
        progress: told of each step.
        **recipe: how to train: the fields of ``heal.recipe.Recipe``.

    Raises:
        UserError: anything that does not do; nothing is loaded or written before that is known.
    """
    sources = prepare_sources(
        run,
        Recipe(**recipe),
        train=train,
        text=text,
        drop_overlap=drop_overlap,
        model=model,
        dtype=dtype,
        device=device,
        revision=revision,
        trust_remote_code=trust_remote_code,
        blocks=blocks,
    )
    if step is None:
        step = sources.run.manifest["result"]["chosen_step"]
        if step == 0:
            raise UserError(f"{run}: no block was removed at its chosen step; name one with --step")
    sources.run.check_step(step)
    check_name(name)
    return heal_step(sources, step, name=name, arguments=arguments, progress=progress, full=[])


def check_name(name: str | None) -> None:
    """Refuse a name that leads out of RUN/heal."""
    if name is not None and (Path(name).name != name or name in (".", "..")):
        raise UserError(f"--name={name!r} must be a plain name of a folder in RUN/heal")


def heal_step(
    sources: Sources,
    step: int,
    *,
    name: str | None = None,
    arguments: str | None = None,
    progress: Progress = silent,
    label: str = "healing",
    full: list[Decoder],
) -> Healing:
    """Heal the model of one step; other arguments as of ``heal``.

    Args:
        sources: what to work with.
        step: checked.
        name: of the directory.
        arguments: the command line.
        progress: told of each step.
        label: for ``progress``.
        full: the full model, if it is loaded already; else it is loaded into this list.
    """
    run, recipe = sources.run, sources.recipe
    identity = _identity(sources, step)
    folder = run.directory.path / "heal" / (name or _default_name(identity, recipe, step))
    directory = RunDirectory(folder)
    if directory.state(identity) == "finished":
        return _finished(sources, directory, step, "finished")
    extra = {"arguments": arguments, "training_questions": sources.counts}
    with directory.lock():
        if directory.state(identity) == "finished":  # meanwhile, by another process
            return _finished(sources, directory, step, "finished")
        if not full:
            full.append(load_full(run, dtype=sources.dtype, **sources.options))
        with (
            shortened(full[0], run, step, sources.dtype, folder) as decoder,
            directory.open(identity, extra) as state,
        ):
            before = measure(decoder, run.evaluation, run.manifest["seed"])
            teacher = full[0] if recipe.objective == "distill" else None
            trainer = Trainer(
                decoder, sources.material(decoder), recipe, DTYPES[sources.dtype], teacher
            )
            with trainable(decoder, recipe.method, recipe.rank, recipe.seed):
                trained = train(trainer, folder / "state.pt", progress, label)
            exported = _export(sources, decoder, full[0], step, trained, directory)
            healed = load_model(
                exported.path,
                device=str(decoder.device),
                dtype=sources.dtype,
                stream=False,
                trust_remote_code=sources.options["trust_remote_code"],
            )
            after = measure(healed, run.evaluation, run.manifest["seed"])
            write_measured(folder / "measured.safetensors", before, after)
            directory.update(
                status="finished",
                result={
                    "export": exported.to_dict(),
                    "training": {
                        "steps": trained.step,
                        "best_step": trained.best_step,
                        "stopped_by": trained.stopped_by,
                        "evaluations": trained.evaluations,
                        "seconds": round(trained.seconds, 3),
                        "examples": len(trainer.material),
                        "on_questions": sources.training is not None,
                        "decided_otherwise_than_the_run": int(
                            (before.correct != run.correct(step)).sum()
                        ),
                    },
                },
            )
            (folder / "state.pt").unlink(missing_ok=True)
            return _finished(sources, directory, step, state)


def measure(decoder: Decoder, task: Task, seed: int) -> Measured:
    """A model's decisions on questions at its readouts."""
    decisions = trace(decoder, task, seed=seed).decisions
    return Measured(decisions.correct[:, -1], decisions.margins)


def _finished(sources: Sources, directory: RunDirectory, step: int, state: str) -> Healing:
    """The result of a directory that is done, read back; ``heal.json`` is written if it is not."""
    run, result = sources.run, directory.manifest["result"]
    before, after = read_measured(directory.path / "measured.safetensors")
    healing = Healing(
        step=step,
        removed=run.removed(step),
        kept=run.kept(step),
        before=before,
        after=after,
        full_correct=run.full_correct,
        chances=1 / run.evaluation.options,
        seed=run.manifest["seed"],
        recipe=sources.recipe.to_dict(),
        training=result["training"],
        export=result["export"],
        path=str(directory.path),
        state=state,
    )
    if not (directory.path / "heal.json").exists():
        write_json(directory.path / "heal.json", healing.to_dict())
    return healing


def _export(
    sources: Sources,
    decoder: Decoder,
    full: Decoder,
    step: int,
    trained: State,
    directory: RunDirectory,
) -> Export:
    """Write the healed checkpoint by the path of all exports, which proves it by reloading."""
    run = sources.run
    shutil.rmtree(directory.model_path, ignore_errors=True)
    notes = {
        "base_model": run.manifest["model"]["name"],
        "base_model_fingerprint": run.manifest["model"]["fingerprint"],
        "blocks": run.blocks,
        "removed": run.removed(step),
        "kept": run.kept(step),
        **({"merged": run.merged(step)} if run.merged(step) else {}),
        "full_parameters": sum(p.numel() for p in full.model.parameters()),
        "healing": sources.identity | {"steps": trained.step, "best_step": trained.best_step},
    }
    return export(decoder, [], directory.model_path, healed=notes)


def _identity(sources: Sources, step: int) -> dict[str, Any]:
    manifest = sources.run.manifest
    return {
        "command": "heal",
        "model": manifest["model"],
        "task": manifest["task"],
        "prompt_format": manifest["prompt_format"],
        "seed": sources.recipe.seed,
        "options": {"step": step, "removed": sources.run.removed(step)} | sources.identity,
    }


def _default_name(identity: dict[str, Any], recipe: Recipe, step: int) -> str:
    """A name that the same command finds again and another one does not get in the way of."""
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:6]
    return f"step{step}-{recipe.method}-{recipe.objective}-seed{recipe.seed}-{digest}"
