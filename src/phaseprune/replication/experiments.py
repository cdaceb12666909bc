"""How each experiment is run on a task, in a run directory of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from phaseprune.decision.transition import Transition
from phaseprune.decoder.decoder import Decoder
from phaseprune.healing.ladder import heal_ladder
from phaseprune.probes.ablation import ablate
from phaseprune.probes.perturbation import perturb
from phaseprune.probes.phasewise import phasewise
from phaseprune.probes.similarity import similarity
from phaseprune.progress import Progress, silent
from phaseprune.pruning.prune import prune
from phaseprune.questions.question import Task
from phaseprune.questions.split import split
from phaseprune.replication.settings import Settings
from phaseprune.report.run_files import read_json
from phaseprune.sweep.trace import trace

#: Where the summary of the healed depths is, below a task's folder.
LADDER = Path("prune", "heal", "ladder")


@dataclass(frozen=True)
class Job:
    """One task of ``paper``.

    Attributes:
        decoder: the model.
        task: the questions.
        settings: of the experiments, resolved.
        folder: where their run directories are.
        seed: of all of them.
        loading: how the model was loaded (options of ``load_model``), for healing, which loads it
            again.
        arguments: the command line, for the manifests.
        progress: told of the running experiment.
    """

    decoder: Decoder
    task: Task
    settings: Settings
    folder: Path
    seed: int = 0
    loading: Mapping[str, Any] = field(default_factory=dict)
    arguments: str | None = None
    progress: Progress = silent

    def told(self, name: str) -> dict[str, Any]:
        """What every experiment is told."""
        return {
            "seed": self.seed,
            "out": self.folder / name,
            "arguments": self.arguments,
            "progress": self.progress,
        }

    @property
    def sides(self) -> dict[str, int | None]:
        """How many questions blocks are chosen on, and how many others are reported on."""
        return {"calibration": self.settings.calibration, "evaluation": self.settings.evaluation}

    @cached_property
    def transition(self) -> Transition:
        """The phases of all experiments: found by ``trace`` on all questions of the task.

        The experiments themselves run on few of them, as they cost more than a trace.
        """
        found = read_json(self.folder / "trace" / "trace.json", ("transition",))["transition"]
        lists = {name: tuple(v) for name, v in found.items() if isinstance(v, list)}
        return Transition(**found | lists | {"questions": len(self.task.questions)})

    @property
    def probe(self) -> Task:
        """The evaluation questions that perturbation and ablation use.

        Drawn by the seed of the split, so questions of all groups are among them.
        """
        _, others = split(self.task, seed=self.seed, **self.sides)
        count = min(self.settings.probe, len(others.questions))
        return split(self.task, self.settings.calibration, count, self.seed)[1]


def run_experiment(name: str, job: Job) -> None:
    """Run one experiment of ``settings.EXPERIMENTS``, or go on with it.

    Raises:
        UserError: it cannot be done with this model and these questions; says why.
    """
    _RUNS[name](job)


def _trace(job: Job) -> None:
    trace(job.decoder, job.task, **job.told("trace"))


def _lens(job: Job) -> None:
    trace(
        job.decoder,
        job.task,
        lens="tuned",
        calibration=job.settings.calibration,
        **job.told("lens"),
    )


def _prune(job: Job) -> None:
    prune(
        job.decoder,
        job.task,
        remove=job.settings.remove,
        objective=job.settings.objective,
        search=job.settings.search,
        transition=job.transition,
        **job.sides,
        **job.told("prune"),
    )


def _similarity(job: Job) -> None:
    similarity(job.decoder, job.task, run=job.folder / "prune", **job.told("similarity"))


def _perturb(job: Job) -> None:
    perturb(
        job.decoder,
        job.probe,
        noise=job.settings.noise,
        noise_seeds=job.settings.noise_seeds,
        transition=job.transition,
        **job.told("perturb"),
    )


def _ablate(job: Job) -> None:
    ablate(
        job.decoder,
        job.task,
        kind=job.settings.ablation,
        calibration=job.settings.calibration,
        evaluation=len(job.probe.questions),
        transition=job.transition,
        **job.told("ablate"),
    )


def _phasewise(job: Job) -> None:
    sizes = len(job.transition.silent_blocks), len(job.transition.decisive_blocks)
    most = job.settings.most and min(job.settings.most, max(1, min(sizes)))
    phasewise(
        job.decoder,
        job.task,
        draws=job.settings.draws,
        most=most,
        transition=job.transition,
        **job.sides,
        **job.told("phasewise"),
    )


def _heal(job: Job) -> None:
    told = job.told("heal")
    del told["out"]
    whole = job.decoder.placement.in_place
    heal_ladder(
        job.folder / "prune",
        job.settings.ladder,
        seeds=job.settings.heal_seeds,
        train=job.settings.train,
        drop_overlap=True,
        name=LADDER.name,
        model=job.decoder.name,
        full=job.decoder if whole else None,
        device=str(job.decoder.device),
        **job.loading,
        **job.settings.recipe,
        **told,
    )


_RUNS: dict[str, Callable[[Job], None]] = {
    "trace": _trace,
    "lens": _lens,
    "prune": _prune,
    "similarity": _similarity,
    "perturb": _perturb,
    "ablate": _ablate,
    "phasewise": _phasewise,
    "heal": _heal,
}
