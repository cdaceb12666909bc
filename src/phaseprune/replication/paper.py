"""``paper``: every experiment of arXiv 2605.07271 on a model, and what it says of the claims."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from phaseprune.decoder.decoder import Decoder
from phaseprune.errors import UserError
from phaseprune.progress import Progress, silent
from phaseprune.questions.question import Task
from phaseprune.questions.split import split
from phaseprune.questions.training import disjoint_training, training_questions
from phaseprune.replication.claims import CLAIMS, Finding
from phaseprune.replication.experiments import Job, run_experiment
from phaseprune.replication.results import Results, read_results
from phaseprune.replication.settings import Settings, resolve
from phaseprune.runs.atomic import write_json
from phaseprune.runs.directory import RunDirectory
from phaseprune.runs.folders import task_folders
from phaseprune.runs.result import Result, named
from phaseprune.sweep.recorded import run_identity

#: Without what these say there is nothing to report, so their errors end the run.
ESSENTIAL = ("trace", "prune")


@dataclass(frozen=True)
class PaperTask:
    """What the experiments of one task came to.

    Attributes:
        name: of the task.
        folder: where its run directories are.
        experiments: experiment -> ``state`` (``done`` or ``not done``), ``reason`` and ``seconds``.
        results: experiment -> its result, as in its run directory.
        findings: claim -> what the results say of it.
    """

    name: str
    folder: Path
    experiments: Mapping[str, Mapping[str, Any]]
    results: Results = field(repr=False)
    findings: Mapping[str, Finding]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; of the results only where they are."""
        return {
            "task": self.name,
            "folder": self.folder.name,
            "experiments": {name: dict(told) for name, told in self.experiments.items()},
            "claims": {name: finding.to_dict() for name, finding in self.findings.items()},
        }


@dataclass(frozen=True, repr=False)
class Paper(Result):
    """All experiments on one model, held against the paper.

    Attributes:
        model: its name.
        blocks: L.
        path: the run directory.
        tasks: one a task.
        state: ``new``, ``resumed`` or ``finished`` before.
    """

    model: str
    blocks: int
    path: Path
    tasks: tuple[PaperTask, ...]
    state: str = field(default="new", compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The content of ``paper.json``: plain JSON values."""
        return {
            "model": self.model,
            "blocks": self.blocks,
            "claims": [claim.to_dict() for claim in CLAIMS],
            "tasks": [task.to_dict() for task in self.tasks],
        }

    def plot(self):
        """A matplotlib figure of the verdicts by claim and task."""
        from phaseprune.replication.figures import verdicts_figure

        return verdicts_figure(self.to_dict())

    def _lines(self) -> list[str]:
        lines = [f"{self.model}, {self.blocks} blocks, {len(CLAIMS)} claims of arXiv 2605.07271"]
        for task in self.tasks:
            counts = Counter(finding.verdict for finding in task.findings.values())
            lines.append(f"{task.name}: {named([f'{n} {v}' for v, n in counts.most_common()])}")
        return lines

    def _rows(self) -> list[dict[str, Any]]:
        """A row a task and claim."""
        return [
            {"task": task.name, "claim": name, **finding.to_dict()}
            for task in self.tasks
            for name, finding in task.findings.items()
        ]


def paper(
    decoder: Decoder,
    tasks: Sequence[Task],
    *,
    out: str | Path,
    settings: Settings | Sequence[Settings] = Settings(),
    seed: int = 0,
    loading: Mapping[str, Any] | None = None,
    arguments: str | None = None,
    note: Callable[[str], None] = lambda text: None,
    progress: Progress = silent,
) -> Paper:
    """Run all experiments of the paper on a model, each in a run directory of its own.

    An experiment that cannot be done with a task (no transition, no training questions) is left out
    and its reason kept; what is done is kept when the run is stopped.

    Args:
        decoder: from ``load_model``.
        tasks: from ``load_task``, one or more.
        out: run directory: ``OUT/TASK/EXPERIMENT`` and the report of all.
        settings: of all tasks, or one a task.
        seed: of everything.
        loading: options that the model was loaded with (``revision``, ``trust_remote_code``,
            ``blocks``), as healing loads it again.
        arguments: the command line, for the manifests.
        note: told in a sentence of what is begun and what is left out.
        progress: told of the running experiment.

    Raises:
        UserError: options or questions that do not do, or a directory with another run.
    """
    each = [settings] * len(tasks) if isinstance(settings, Settings) else list(settings)
    each = [resolve(one, len(decoder.blocks)) for one in each]
    folders = task_folders([task.name for task in tasks])
    for task, own in zip(tasks, each, strict=True):
        split(task, own.calibration, own.evaluation, seed)
    run = RunDirectory(Path(out))
    names = [task.name for task in tasks]
    jobs = [
        Job(decoder, task, own, run.path / folder, seed, loading or {}, arguments, progress)
        for task, own, folder in zip(tasks, each, folders, strict=True)
    ]
    with run.open(
        _identity(decoder, tasks, dict(zip(folders, each, strict=True)), seed),
        {"arguments": arguments, "tasks": names, "done": {}},
        adds=any(_missing(run, job) for job in jobs),
    ) as state:
        missing = [job for job in jobs if _missing(run, job)]
        if missing:
            run.update(status="running")
        for job in missing:
            _run_task(run, job, note)
        found = open_paper(run.path)
        if missing or state != "finished":
            write_json(run.path / "paper.json", found.to_dict())
            run.update(status="finished")
    return replace(found, state=state)


def _identity(
    decoder: Decoder, tasks: Sequence[Task], settings: Mapping[str, Settings], seed: int
) -> dict[str, Any]:
    """Which run it is. What is skipped is no part of it, so that it can be added later."""
    identity = run_identity("paper", decoder, tasks[0], seed, {})
    told = [{k: v for k, v in task.identity.items() if k != "name"} for task in tasks]
    return identity | {
        "task": {
            "name": ", ".join(task.name for task in tasks),
            **{str(number): one for number, one in enumerate(told, start=1)},
        },
        "prompt_format": [task.prompt_format for task in tasks],
        "options": {
            f"{name} of {folder}": value
            for folder, one in settings.items()
            for name, value in one.to_dict().items()
            if name != "skip"
        },
    }


def _missing(run: RunDirectory, job: Job) -> list[str]:
    """The experiments of a task that the run has not done, in order."""
    done = run.manifest.get("done", {}) if run.manifest_path.exists() else {}
    told = done.get(job.folder.name, {})
    return [e for e in job.settings.experiments if told.get(e, {}).get("state") != "done"]


def _run_task(run: RunDirectory, job: Job, note: Callable[[str], None]) -> None:
    """Run what is missing of a task, and keep how each ended."""
    name, folder = job.task.name, job.folder.name
    told = dict(run.manifest["done"].get(folder, {}))
    missing = _missing(run, job)
    without = _no_training(job) if "heal" in missing else None
    if without:
        note(f"{name}: nothing will be healed, as {without}")
    for experiment in missing:
        note(f"{name}: {experiment}")
        began = time.perf_counter()
        how: dict[str, Any] = {"state": "done", "reason": None}
        try:
            if experiment == "heal" and without:
                raise UserError(without)
            run_experiment(experiment, job)
        except UserError as error:
            if experiment in ESSENTIAL:
                raise
            how = {"state": "not done", "reason": error.typed}
            note(f"{name}: {experiment} is left out: {error.typed}")
        seconds = told.get(experiment, {}).get("seconds", 0.0) + time.perf_counter() - began
        told[experiment] = how | {"seconds": round(seconds, 1)}
        run.update(done=run.manifest["done"] | {folder: told})


def _no_training(job: Job) -> str | None:
    """Why nothing can be healed, known before hours are spent on what comes before; or None."""
    chosen, scored = split(job.task, seed=job.seed, **job.sides)
    try:
        training = training_questions(job.task, job.settings.train)
        disjoint_training(training, [*chosen.questions, *scored.questions], drop=True)
    except UserError as error:
        return error.typed
    return None


def read_paper(run: RunDirectory) -> Paper:
    """What a finished run holds."""
    return open_paper(run.path)


def open_paper(path: str | Path) -> Paper:
    """A finished or unfinished run of ``paper``, from its directory.

    Raises:
        UserError: it is no run of paper.
    """
    run = RunDirectory(Path(path))
    manifest = run.manifest
    if manifest["command"] != "paper":
        raise UserError(f"{path} is a run of {manifest['command']}, not of paper")
    names, tasks = manifest["tasks"], []
    for name, folder in zip(names, task_folders(names), strict=True):
        told = manifest["done"].get(folder, {})
        done = {experiment for experiment, how in told.items() if how["state"] == "done"}
        results = {e: r for e, r in read_results(run.path / folder).items() if e in done}
        findings = {claim.name: claim.find(results) for claim in CLAIMS}
        tasks.append(PaperTask(name, run.path / folder, told, results, findings))
    return Paper(
        manifest["model"]["name"],
        manifest["model"]["blocks"],
        run.path,
        tuple(tasks),
        manifest["status"],
    )
