"""The sections of the report of ``paper``, in the order of the paper: claims, words and figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from phaseprune.replication.results import Results
from phaseprune.report.ablate import ablation_sentences
from phaseprune.report.collapse import collapse_line, dynamics_lines, fall_lines
from phaseprune.report.heal import gains_line, scope_line
from phaseprune.report.perturb import cost_sentence, phase_sentences
from phaseprune.report.similarity import similarity_lines
from phaseprune.report.trace import depth_lines, lens_lines
from phaseprune.report.view import Figure

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Drawing:
    """A figure of one experiment.

    Attributes:
        name: unique in its section.
        experiment: that it is of.
        drawing: its function in ``report.figures``.
        caption: what to look for.
        given: what that function takes, from the result.
    """

    name: str
    experiment: str
    drawing: str
    caption: str
    given: Callable[[Result], tuple[Any, ...]] = lambda result: (result,)

    def figure(self, task: str, result: Result) -> Figure:
        """The figure of a task."""
        return Figure(f"{task}-{self.name}", self.drawing, self.given(result), self.caption)


@dataclass(frozen=True)
class Section:
    """One experiment of the paper.

    Attributes:
        name: an anchor.
        title: of the section.
        claims: names of the claims it is held against.
        experiments: those that it shows, the first one linked.
        drawings: figures of each task.
        lines: sentences of each task, from its results.
    """

    name: str
    title: str
    claims: tuple[str, ...]
    experiments: tuple[str, ...]
    drawings: tuple[Drawing, ...]
    lines: Callable[[Results], list[str]] = lambda results: []


def _dynamics(results: Results) -> list[str]:
    if "prune" not in results:
        return []
    run = results["prune"]
    labels = run["trace"] and run["trace"]["option_labels"]
    result = run["result"]
    return [
        collapse_line(result, run["steps"]),
        *fall_lines(result, run["steps"]),
        *dynamics_lines(result, labels)[1:],
        *_collapse_beyond(result),
    ]


def _collapse_beyond(result: Mapping[str, Any]) -> list[str]:
    """What the paper does not tell apart: whether a collapse is of calibration or of knowledge."""
    if result.get("collapse") is None:
        return []
    return [
        "Beyond the paper: a model that is asked by letters can collapse in its calibration alone, "
        "when blocks go that take a label prior off; without that prior it still knows the answers."
    ]


def _decisions(results: Results) -> list[str]:
    return [
        *(depth_lines(results["trace"]) if "trace" in results else []),
        *(lens_lines(results["lens"]) if "lens" in results else []),
    ]


def _noise(results: Results) -> list[str]:
    if "perturb" not in results:
        return []
    return [*phase_sentences(results["perturb"]), cost_sentence(results["perturb"])]


SECTIONS = (
    Section(
        "decision",
        "Where the model makes up its mind",
        ("sharp_transition", "one_sided_options"),
        ("trace", "lens"),
        (
            Drawing(
                "margin",
                "trace",
                "decision_margin_figure",
                "Decision Margin by readout; green: with the label prior taken off, where "
                "options are letters. The paper: low in the Silent Phase, then a jump.",
            ),
            Drawing(
                "frequency",
                "trace",
                "option_frequency_figure",
                "Option Frequency by readout beside the gold shares. The paper: one-sided in "
                "the Silent Phase, balanced after it.",
            ),
            Drawing(
                "lens-margin",
                "lens",
                "decision_margin_figure",
                "The same margin under a tuned lens, beside the plain one, on the questions "
                "that the lens was not fitted to.",
            ),
        ),
        _decisions,
    ),
    Section(
        "pruning",
        "Iterative Pruning",
        ("cliff", "silent_hit", "transition_vanishes"),
        ("prune",),
        (
            Drawing(
                "pruning",
                "prune",
                "pruning_figure",
                "Accuracy by number of removed blocks. The paper: stable, then a cliff.",
                lambda run: (run["steps"], run["result"], run["trace"] and run["trace"]["chance"]),
            ),
            Drawing(
                "heatmap",
                "prune",
                "margin_heatmap_figure",
                "The Decision Margin of each pruned model, a row a step. The paper: the "
                "transition is there until the Silent Phase is hit, then it is gone.",
                lambda run: (run["steps"], run["trace"]),
            ),
            Drawing(
                "dynamics",
                "prune",
                "dynamics_figure",
                "Where each pruned model decides, corrected for the number of steps; below "
                "where the transition is gone (x) or cannot be told (?).",
                lambda run: (run["result"],),
            ),
        ),
        _dynamics,
    ),
    Section(
        "phases",
        "Pruning one phase alone",
        ("phases_differ",),
        ("phasewise",),
        (
            Drawing(
                "phasewise",
                "phasewise",
                "phasewise_figure",
                "Retained accuracy of random sets of blocks of one phase, with 95 % "
                "intervals over questions and sets. Below, what each block costs by its depth, "
                "and the difference between the phases with depth controlled.",
                lambda run: (run["result"],),
            ),
        ),
    ),
    Section(
        "similarity",
        "Feature and decision similarity",
        ("features_alike",),
        ("similarity",),
        (
            Drawing(
                "similarity",
                "similarity",
                "similarity_figure",
                "Similarity of hidden states (CKA) and of decisions (beyond that of decisions "
                "on different questions) at the outputs, a pruning step after the other.",
            ),
        ),
        lambda results: (
            similarity_lines(results["similarity"])[:1] if "similarity" in results else []
        ),
    ),
    Section(
        "noise",
        "Perturbation",
        ("silent_breaks", "decisive_holds"),
        ("perturb", "ablate"),
        (
            Drawing(
                "perturbation",
                "perturb",
                "perturbation_figure",
                "Decision Margin at the output with noise at one readout. The paper: the "
                "Silent Phase breaks near 0.02, the Decisive Phase holds at 0.1.",
            ),
            Drawing(
                "halving",
                "perturb",
                "halving_figure",
                "The least noise that takes half of DM, by readout.",
            ),
            Drawing(
                "ablation",
                "ablate",
                "ablation_figure",
                "Beyond the paper: one block ablated, beside the model without it.",
            ),
        ),
        lambda results: (
            _noise(results) + (ablation_sentences(results["ablate"]) if "ablate" in results else [])
        ),
    ),
    Section(
        "recovery",
        "Bounded recovery",
        ("recovery_bounded", "recovery_levels_off", "margin_lifted"),
        ("heal",),
        (
            Drawing(
                "recovery",
                "heal",
                "recovery_figure",
                "Retained accuracy before and after fine-tuning, by the blocks that remain. "
                "The paper: bounded by depth, levelling off past about 40.6 % pruned.",
            ),
        ),
        lambda results: (
            [gains_line(results["heal"]), scope_line(results["heal"])] if "heal" in results else []
        ),
    ),
)
