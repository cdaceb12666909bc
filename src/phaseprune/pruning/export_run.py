"""Exporting the model that a pruning run measured."""

from __future__ import annotations

from pathlib import Path

from phaseprune.decision.laco import read_mixtures
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.export import Export, export
from phaseprune.decoder.export_notes import zeroed_lines
from phaseprune.decoder.items import Item
from phaseprune.errors import UserError
from phaseprune.pruning.export_figures import export_figures
from phaseprune.runs.directory import RunDirectory, model_difference
from phaseprune.runs.folders import PRUNE_TASKS


def run_to_export(path: str | Path) -> RunDirectory:
    """The run directory of a ``prune`` that has steps to export.

    Raises:
        UserError: it is no run, or no pruning run with a removed block.
    """
    run = RunDirectory(Path(path))
    command = run.manifest["command"]
    if command not in ("prune", PRUNE_TASKS):
        raise UserError(f"{path} is a run of {command}, which removes no blocks; give one of prune")
    if len(run.steps()) < 2:
        raise UserError(f"{path} has no finished pruning step; run the same prune command again")
    return run


def step_to_export(run: RunDirectory, step: int | None) -> int:
    """The step that is meant: as asked for, else the chosen one (or the last, of no end yet).

    Raises:
        UserError: there is no such step, or nothing was removed at it.
    """
    steps, result = run.steps(), run.manifest["result"]
    if step is None:
        step = result["chosen_step"] if result else steps[-1]["step"]
    if not 0 <= step < len(steps):
        raise UserError(f"{run.path} has steps 0 to {len(steps) - 1}, and no step {step}")
    if step == 0:
        raise UserError(
            f"{run.path}: no block was removed at step 0, so there is nothing to export; name "
            "another with --step"
        )
    return step


def removed_up_to(run: RunDirectory, step: int) -> list[Item]:
    """The blocks, or halves, that are gone at a step, in order of removal."""
    return [line["removed"] for line in run.steps()[1 : step + 1]]


def export_run(
    decoder: Decoder, run: RunDirectory, *, step: int | None = None, out: str | Path | None = None,
    repair_labels: bool = False,
) -> Export:  # fmt: skip
    """Export the model of one step of a pruning run.

    Args:
        decoder: the run's full model; a different one is refused by its fingerprint.
        run: from ``run_to_export``.
        step: which step; by default the chosen one (the last one of an unfinished run).
        out: where to; by default RUN/model.
        repair_labels: say in ``phaseprune.json`` and the model card what takes the label prior off
            the logits of the labels; the weights are not touched.

    Raises:
        UserError: another model than the run's, no such step, or nothing to remove.
        ExportMismatch: see ``decoder.export``.
    """
    with run.lock():
        return _export_step(decoder, run, step, out, repair_labels)


def _export_step(
    decoder: Decoder, run: RunDirectory, step: int | None, out: str | Path | None,
    repair_labels: bool,
) -> Export:  # fmt: skip
    manifest, steps = run.manifest, run.steps()
    if difference := model_difference(manifest["model"], decoder.source.identity):
        raise UserError(
            f"{decoder.name} is not the model of {run.path}, or has changed since: {difference}"
        )
    result = manifest["result"]
    step = step_to_export(run, step)
    figures = export_figures(run, step, repair_labels)
    exported = export(
        decoder,
        removed_up_to(run, step),
        run.model_path if out is None else out,
        figures=figures,
        merged=read_mixtures(steps[step].get("merged")),
    )
    if result and step == result["chosen_step"]:
        summary = {
            "path": exported.path,
            "max_abs_logit_difference": exported.max_abs_logit_difference,
        }
        if exported.warnings:
            summary["warnings"] = exported.warnings
        if exported.zeroed:
            told = zeroed_lines(exported.zeroed)
            summary |= {"zeroed": exported.zeroed, "zeroed_in_words": told}
        run.update(result=result | {"export": summary})
    return exported
