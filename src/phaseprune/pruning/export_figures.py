"""What an exported model says of itself: the figures of one step of a pruning run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phaseprune.decision.guards import short_figures
from phaseprune.errors import UserError
from phaseprune.runs.directory import RunDirectory
from phaseprune.runs.folders import PRUNE_TASKS


def export_figures(
    run: RunDirectory, step: int, repair_labels: bool = False
) -> dict[str, Any]:
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
