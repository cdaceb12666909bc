"""What the experiments of a task came to, read from their run directories."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from phaseprune.replication.experiments import LADDER
from phaseprune.report.run_files import read_json, read_run

#: Experiment -> its result; None where it is not there.
Results = dict[str, Any]


def read_results(folder: Path) -> Results:
    """The results of a task, by experiment; those that are missing are left out.

    Args:
        folder: of the task.

    Returns:
        ``trace``, ``lens``: the content of ``trace.json``; ``prune``: result, steps and trace;
        ``similarity``, ``perturb``, ``ablate``, ``heal``: the content of their file; ``phasewise``:
        result and trace.

    Raises:
        UserError: a file cannot be read.
    """
    found = {name: read(folder) for name, read in _READ.items()}
    return {name: result for name, result in found.items() if result is not None}


def place(folder: Path, experiment: str) -> Path:
    """The run directory of an experiment."""
    return folder / (LADDER if experiment == "heal" else experiment)


def _of_trace(name: str) -> Callable[[Path], dict[str, Any] | None]:
    return lambda folder: read_json(folder / name / "trace.json", ("transition",))


def _of_run(name: str) -> Callable[[Path], dict[str, Any] | None]:
    def read(folder: Path) -> dict[str, Any] | None:
        if not (folder / name / "manifest.json").exists():
            return None
        run = read_run(folder / name)
        result = run.manifest.get("result")
        return result and {"result": result, "steps": run.steps, "trace": run.trace}

    return read


def _of_file(experiment: str, file: str, key: str) -> Callable[[Path], dict[str, Any] | None]:
    return lambda folder: read_json(place(folder, experiment) / file, (key,))


_READ: dict[str, Callable[[Path], dict[str, Any] | None]] = {
    "trace": _of_trace("trace"),
    "lens": _of_trace("lens"),
    "prune": _of_run("prune"),
    "similarity": _of_file("similarity", "similarity.json", "models"),
    "perturb": _of_file("perturb", "perturbation.json", "phases"),
    "ablate": _of_file("ablate", "ablation.json", "blocks"),
    "phasewise": _of_run("phasewise"),
    "heal": _of_file("heal", "ladder.json", "depths"),
}
