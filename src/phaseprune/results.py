"""A run directory read back into the result that its command returned."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from phaseprune.errors import UserError
from phaseprune.runs.directory import RunDirectory
from phaseprune.runs.folders import PRUNE_TASKS
from phaseprune.runs.result import Result

#: The command of a manifest -> where its reader is: a function of the run.
READERS = {
    "trace": "phaseprune.sweep.trace:open_trace",
    "plan": "phaseprune.methods.plan:read_plan",
    "prune": "phaseprune.pruning.result:read_pruning",
    PRUNE_TASKS: "phaseprune.pruning.result:read_pruning",
    "compare": "phaseprune.comparison.compare:read_compared",
    "phasewise": "phaseprune.probes.phasewise:read_phasewise",
    "perturb": "phaseprune.probes.perturbation:read_perturbation",
    "ablate": "phaseprune.probes.ablation:read_ablation",
    "similarity": "phaseprune.probes.compared:read_similarity",
    "heal": "phaseprune.healing.result:read_healing",
    "heal --ladder": "phaseprune.healing.ladder:read_healing_ladder",
    "paper": "phaseprune.replication.paper:read_paper",
}


def open_run(path: str | Path) -> Result:
    """The result that a finished run directory holds: what its command returned.

    Figures are read, not computed again, and neither the model nor the questions are needed. The
    ``state`` is ``finished``.

    Args:
        path: of ``trace``, ``plan``, ``prune``, ``compare``, ``phasewise``, ``perturb``,
            ``ablate``, ``similarity`` or ``paper``; of ``heal``, its RUN/heal/NAME.

    Returns:
        ``Trace``, ``Plan``, ``Pruning``, ``Compared``,
        ``Phasewise``, ``Perturbation``, ``Ablation``, ``Similarity``, ``Healing``, ``Ladder`` or
        ``Paper``.

    Raises:
        UserError: it is no run, is not finished, or lacks a file.
    """
    run = RunDirectory(Path(path).expanduser())
    manifest = run.manifest
    command = manifest.get("command")
    if command not in READERS:
        raise UserError(
            f"{path} is a run of {command}, which nothing here reads; give one of "
            f"{', '.join(READERS)}"
        )
    if manifest.get("status") != "finished":
        raise UserError(
            f"{path} is not finished (it is {manifest.get('status')}); give its command again "
            f"first: {manifest.get('arguments') or f'phaseprune {command} …'}"
        )
    module, _, name = READERS[command].partition(":")
    read: Callable[[RunDirectory], Any] = getattr(import_module(module), name)
    try:
        return read(run)
    except KeyError as error:
        raise UserError(
            f"{path} was written by another version, whose files lack {error}; give its command "
            "again with another --out"
        ) from None
