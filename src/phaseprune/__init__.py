"""Find where a language model makes up its mind, and prune what comes after.

>>> import phaseprune
>>> model = phaseprune.load_model("demo")
>>> task = phaseprune.load_task("demo", limit=100)
>>> phaseprune.trace(model, task).transition.found
True
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for editors and type checkers; each is imported on first use
    from phaseprune.comparison.compare import Compared as Compared
    from phaseprune.comparison.compare import compare as compare
    from phaseprune.decision.trace import Trace as Trace
    from phaseprune.decoder.decoder import Decoder as Decoder
    from phaseprune.decoder.export import Export as Export
    from phaseprune.decoder.export import export as export
    from phaseprune.decoder.load import load_model as load_model
    from phaseprune.decoder.saving import measure_saving as measure_saving
    from phaseprune.errors import UserError as UserError
    from phaseprune.healing.heal import heal as heal
    from phaseprune.healing.ladder import Ladder as Ladder
    from phaseprune.healing.ladder import heal_ladder as heal_ladder
    from phaseprune.healing.result import Healing as Healing
    from phaseprune.methods.plan import Plan as Plan
    from phaseprune.methods.plan import plan as plan
    from phaseprune.methods.rank import Ranking as Ranking
    from phaseprune.methods.rank import rank_blocks as rank_blocks
    from phaseprune.probes.ablation import Ablation as Ablation
    from phaseprune.probes.ablation import ablate as ablate
    from phaseprune.probes.compared import Similarity as Similarity
    from phaseprune.probes.guards import Guard as Guard
    from phaseprune.probes.guards import guard_model as guard_model
    from phaseprune.probes.perturbation import Perturbation as Perturbation
    from phaseprune.probes.perturbation import perturb as perturb
    from phaseprune.probes.phasewise import Phasewise as Phasewise
    from phaseprune.probes.phasewise import phasewise as phasewise
    from phaseprune.probes.similarity import similarity as similarity
    from phaseprune.pruning.prune import Pruning as Pruning
    from phaseprune.pruning.prune import prune as prune
    from phaseprune.questions.catalog import load_task as load_task
    from phaseprune.questions.question import Question as Question
    from phaseprune.questions.question import Task as Task
    from phaseprune.replication.page import write_paper_report as write_paper_report
    from phaseprune.replication.paper import Paper as Paper
    from phaseprune.replication.paper import paper as paper
    from phaseprune.report.page import write_report as write_report
    from phaseprune.results import open_run as open_run
    from phaseprune.sweep.trace import trace as trace

    __version__: str

#: Public name -> module; imported on first use, so that ``import phaseprune`` is quick.
_PUBLIC = {
    "load_model": "phaseprune.decoder.load",
    "load_task": "phaseprune.questions.catalog",
    "trace": "phaseprune.sweep.trace",
    "plan": "phaseprune.methods.plan",
    "prune": "phaseprune.pruning.prune",
    "perturb": "phaseprune.probes.perturbation",
    "ablate": "phaseprune.probes.ablation",
    "similarity": "phaseprune.probes.similarity",
    "phasewise": "phaseprune.probes.phasewise",
    "compare": "phaseprune.comparison.compare",
    "rank_blocks": "phaseprune.methods.rank",
    "export": "phaseprune.decoder.export",
    "measure_saving": "phaseprune.decoder.saving",
    "guard_model": "phaseprune.probes.guards",
    "heal": "phaseprune.healing.heal",
    "heal_ladder": "phaseprune.healing.ladder",
    "paper": "phaseprune.replication.paper",
    "open_run": "phaseprune.results",
    "write_report": "phaseprune.report.page",
    "write_paper_report": "phaseprune.replication.page",
    # What these take and give.
    "Decoder": "phaseprune.decoder.decoder",
    "Question": "phaseprune.questions.question",
    "Task": "phaseprune.questions.question",
    "Guard": "phaseprune.probes.guards",
    "Trace": "phaseprune.decision.trace",
    "Ranking": "phaseprune.methods.rank",
    "Plan": "phaseprune.methods.plan",
    "Pruning": "phaseprune.pruning.prune",
    "Perturbation": "phaseprune.probes.perturbation",
    "Ablation": "phaseprune.probes.ablation",
    "Similarity": "phaseprune.probes.compared",
    "Phasewise": "phaseprune.probes.phasewise",
    "Compared": "phaseprune.comparison.compare",
    "Export": "phaseprune.decoder.export",
    "Healing": "phaseprune.healing.result",
    "Ladder": "phaseprune.healing.ladder",
    "Paper": "phaseprune.replication.paper",
    "UserError": "phaseprune.errors",
}
__all__ = [*_PUBLIC]  # pyright: ignore[reportUnsupportedDunderAll]


if not TYPE_CHECKING:  # who checks types would take any name for one of ours

    def __getattr__(name: str):
        if name in _PUBLIC:
            return getattr(import_module(_PUBLIC[name]), name)
        if name == "__version__":
            return metadata.version("phaseprune")
        raise AttributeError(f"module 'phaseprune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
