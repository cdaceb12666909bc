"""The figures of a run, each from the plain dicts of its files.

Matplotlib's object-oriented interface only: no pyplot, no global state. Texts that come from
outside (option labels, reasons) are never read as mathematics.
"""

from phaseprune.report.compare_figures import (
    compare_figure,
    cost_figure,
    guarded_figure,
    orders_figure,
)
from phaseprune.report.heal_figures import (
    loss_figure,
    margin_change_figure,
    recovery_figure,
)
from phaseprune.report.perturb_figures import (
    ablation_figure,
    halving_figure,
    perturbation_figure,
)
from phaseprune.report.phasewise_figures import phasewise_figure
from phaseprune.report.plan_figures import plan_figure
from phaseprune.report.prune_figures import (
    dynamics_figure,
    guards_figure,
    margin_heatmap_figure,
    pruning_figure,
    tasks_figure,
)
from phaseprune.report.similarity_figures import (
    similarity_figure,
    similarity_matrices_figure,
)
from phaseprune.report.trace_figures import (
    accuracy_by_readout_figure,
    decision_depth_figure,
    decision_margin_figure,
    group_margins_figure,
    option_frequency_figure,
)

__all__ = [
    "ablation_figure",
    "accuracy_by_readout_figure",
    "compare_figure",
    "cost_figure",
    "decision_depth_figure",
    "decision_margin_figure",
    "dynamics_figure",
    "group_margins_figure",
    "guarded_figure",
    "guards_figure",
    "halving_figure",
    "loss_figure",
    "margin_change_figure",
    "margin_heatmap_figure",
    "option_frequency_figure",
    "orders_figure",
    "perturbation_figure",
    "phasewise_figure",
    "plan_figure",
    "pruning_figure",
    "recovery_figure",
    "similarity_figure",
    "similarity_matrices_figure",
    "tasks_figure",
]
