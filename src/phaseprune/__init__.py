"""Find where a language model makes up its mind, and prune what comes after.

>>> import phaseprune
>>> model = phaseprune.load_model("demo")
>>> task = phaseprune.load_task("demo", limit=100)
>>> phaseprune.trace(model, task).transition.found
True
"""

from __future__ import annotations

from importlib import import_module, metadata

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
    "Guard": "phaseprune.probes.guards",
    "guard_model": "phaseprune.probes.guards",
    "heal": "phaseprune.healing.heal",
    "heal_ladder": "phaseprune.healing.ladder",
    "paper": "phaseprune.replication.paper",
    "write_paper_report": "phaseprune.replication.page",
    "write_report": "phaseprune.report.html",
    "Question": "phaseprune.questions.question",
    "Task": "phaseprune.questions.question",
    "UserError": "phaseprune.errors",
}
__all__ = [*_PUBLIC]


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    if name == "__version__":
        return metadata.version("phaseprune")
    raise AttributeError(f"module 'phaseprune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
