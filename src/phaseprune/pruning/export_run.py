"""Exporting the model that a pruning run measured, with what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phaseprune.decision.guards import short_figures
from phaseprune.decision.laco import read_mixtures
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.export import Export, export
from phaseprune.decoder.export_notes import zeroed_lines
from phaseprune.decoder.items import Item
from phaseprune.errors import UserError
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
    decoder: Decoder,
    run: RunDirectory,
    *,
    step: int | None = None,
    out: str | Path | None = None,
    repair_labels: bool = False,
) -> Export:
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
    decoder: Decoder,
    run: RunDirectory,
    step: int | None,
    out: str | Path | None,
    repair_labels: bool,
) -> Export:
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


def export_figures(run: RunDirectory, step: int, repair_labels: bool = False) -> dict[str, Any]:
    """The figures of a step; of several tasks, those of each under ``tasks``.

    Args:
        run: of ``prune``.
        step: which.
        repair_labels: with what takes the label prior off (``label_correction``).

    Raises:
        UserError: the label prior of texts is asked for, or of a run that does not have it.
    """
    manifest, chosen = run.manifest, run.steps()[step]
    if manifest["command"] != PRUNE_TASKS:
        figures = _of_task(run, step, repair_labels)
    else:
        figures = {
            "run": str(run.path),
            "step": step,
            "retained": chosen["retained"],
            "retained_ci": chosen["retained_ci"],
            "combine": manifest["options"]["combine"],
            "weights": manifest["options"]["weights"],
            "tasks": [
                _of_task(RunDirectory(run.path / folder), step, repair_labels)
                for folder in manifest["tasks"]
            ],
        }
    if manifest.get("chosen_by"):
        figures["chosen_by"] = manifest["chosen_by"]["in_words"]
    if chosen.get("guard"):
        figures["guard"] = short_figures(chosen["guard"])
    return figures


def label_correction(manifest: Mapping[str, Any], step: Mapping[str, Any]) -> dict[str, Any]:
    """What takes the label prior off the logits of the labels, in numbers and as Python.

    Args:
        manifest: of a run of ``prune``.
        step: a line of its ``steps.jsonl``.

    Returns:
        ``labels`` and their ``token_ids``; ``subtract``: number of options -> what to take off the
        logit of each label, from the ``questions`` of the evaluation; the ``prompt_format`` that it
        is for; and ``in_python``.

    Raises:
        UserError: the run scores texts, or an older version made it.
    """
    tokens, prior = manifest.get("label_tokens"), step.get("label_prior")
    if manifest["task"]["scoring"] != "letter":
        raise UserError(
            f"--repair-labels takes the label prior off, and {manifest['task']['name']} is scored "
            "by texts, which have none; leave it out"
        )
    if not tokens or not prior:
        raise UserError(
            "--repair-labels: this run was made by a version that did not keep label priors; run "
            "it again with another --out"
        )
    widest = max(prior, key=int)
    ids = tokens["token_ids"][: int(widest)]
    numbers = [round(value, 4) for value in prior[widest]]
    return {
        **tokens,
        "subtract": prior,
        "questions": manifest["evaluation_questions"],
        "prompt_format": manifest["prompt_format"],
        "in_python": f"answer = (logits[0, -1, {ids}] - torch.tensor({numbers})).argmax()",
    }


def _of_task(run: RunDirectory, step: int, repair_labels: bool) -> dict[str, Any]:
    manifest, steps = run.manifest, run.steps()
    chosen = steps[step]
    return {
        "run": str(run.path),
        "step": step,
        "task": manifest["task"]["name"],
        "scoring": manifest["task"]["scoring"],
        "prompt_format": manifest["prompt_format"],
        "calibration_questions": manifest["calibration_questions"],
        "evaluation_questions": manifest["evaluation_questions"],
        "full": {key: steps[0]["evaluation"][key] for key in ("accuracy", "ci")},
        "pruned": {key: chosen["evaluation"][key] for key in ("accuracy", "ci")},
        "retained": chosen["retained"],
        "retained_ci": chosen["retained_ci"],
        **_debiased(steps[0], chosen),
        **({"label_correction": label_correction(manifest, chosen)} if repair_labels else {}),
    }


def _debiased(full: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of letters with the label prior taken off; nothing of texts."""
    sides = [step["evaluation"].get("debiased") for step in (full, chosen)]
    if None in sides:
        return {}
    return {
        "debiased": {
            name: {key: side[key] for key in ("accuracy", "ci")}
            for name, side in zip(("full", "pruned"), sides, strict=True)
        }
        | {"retained": chosen["retained_debiased"], "retained_ci": chosen["retained_debiased_ci"]}
    }
