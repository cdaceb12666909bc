"""What an exported model says of itself: the figures of one step of a pruning run."""

from __future__ import annotations

from typing import Any

from phaseprune.decision.guards import short_figures
from phaseprune.runs.directory import RunDirectory
from phaseprune.runs.folders import PRUNE_TASKS


def export_figures(run: RunDirectory, step: int) -> dict[str, Any]:
    """The figures of a step; of several tasks, those of each under ``tasks``."""
    manifest, chosen = run.manifest, run.steps()[step]
    if manifest["command"] != PRUNE_TASKS:
        figures = _of_task(run, step)
    else:
        figures = {
            "run": str(run.path),
            "step": step,
            "retained": chosen["retained"],
            "retained_ci": chosen["retained_ci"],
            "combine": manifest["options"]["combine"],
            "weights": manifest["options"]["weights"],
            "tasks": [
                _of_task(RunDirectory(run.path / folder), step) for folder in manifest["tasks"]
            ],
        }
    if manifest.get("chosen_by"):
        figures["chosen_by"] = manifest["chosen_by"]["in_words"]
    if chosen.get("guard"):
        figures["guard"] = short_figures(chosen["guard"])
    return figures


def _of_task(run: RunDirectory, step: int) -> dict[str, Any]:
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
    }
