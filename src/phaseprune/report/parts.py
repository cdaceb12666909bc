"""What the page of a run shows of an experiment, beside or in place of trace and pruning steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from phaseprune.report.ablate import ablation_sentences
from phaseprune.report.ablation_figures import ablation_figure
from phaseprune.report.compare_page import compare_page
from phaseprune.report.heal_page import healing_page, ladder_page
from phaseprune.report.perturb import cost_sentence, phase_sentences
from phaseprune.report.perturb_figures import halving_figure, perturbation_figure
from phaseprune.report.phasewise import difference_tile, phasewise_lines
from phaseprune.report.phasewise_figures import phasewise_figure
from phaseprune.report.plan import plan_lines
from phaseprune.report.plan_figures import plan_figure
from phaseprune.report.run_files import read_json
from phaseprune.report.similarity_page import similarity_page
from phaseprune.report.svg import inline_svg
from phaseprune.report.tasks_page import tasks_page
from phaseprune.runs.folders import PRUNE_TASKS

#: Name, how it is drawn from a result, and caption.
Drawing = tuple[str, Callable[[Mapping[str, Any]], Figure], str]


@dataclass(frozen=True)
class Part:
    """Sentences, tiles (name, number, what stands below it) and figures of an experiment.

    ``alone`` means in place of what follows from trace and steps; ``tables`` have ``name``,
    ``head``, ``rows`` and ``notes``.
    """

    sentences: Sequence[str]
    tiles: Sequence[tuple[str, str, str]]
    figures: Sequence[Mapping[str, Any]]
    alone: bool = False
    tables: Sequence[Mapping[str, Any]] = ()


#: Command -> its part from the run directory, None where there is no result yet; these stand alone.
PAGES = {
    "similarity": similarity_page,
    "compare": compare_page,
    PRUNE_TASKS: tasks_page,
    "heal": healing_page,
    "heal --ladder": ladder_page,
}

#: File of a run -> sentences and drawings of its content.
FILES: dict[str, tuple[Callable[[Mapping[str, Any]], list[str]], tuple[Drawing, ...]]] = {
    "perturbation.json": (
        lambda result: [*phase_sentences(result), cost_sentence(result)],
        (
            (
                "perturbation", perturbation_figure,
                "How sure the output is of the right option when noise is added to the state at "
                "one readout. Look for the readouts at which little noise is enough.",
            ),
            (
                "halving", halving_figure,
                "The least noise that takes half of the Decision Margin, by the readout at which "
                "it is put in; bars are intervals, triangles say that no tried level does it.",
            ),
        ),
    ),
    "plan.json": (
        plan_lines,
        (
            (
                "plan", plan_figure,
                "The blocks in the order in which they could go, Silent and Decisive ones in their "
                "colours. Look for where influence together climbs, or what is read off falls: a "
                "model loses its decisions about there.",
            ),
        ),
    ),
    "ablation.json": (
        ablation_sentences,
        (
            (
                "ablation", ablation_figure,
                "How sure the output is of the right option when one block is ablated, beside the "
                "model without the block.",
            ),
        ),
    ),
}  # fmt: skip

PHASEWISE: Drawing = (
    "phasewise", phasewise_figure,
    "What is left of the accuracy above chance without so many random blocks of one phase. A pale "
    "point is a set of blocks, on the evaluation questions; large ones are means with their 95 % "
    "intervals, hollow ones are of decisions with the label prior taken off. Below, on the left, "
    "what each block costs alone, with a straight line of depth that may jump at the transition "
    "(dotted); on the right, the difference between the phases with depth controlled. The figures "
    "that follow are of the calibration questions, on which the phases were found.",
)  # fmt: skip


def read_parts(run: str | Path, manifest: Mapping[str, Any]) -> list[Part]:
    """Read what a run holds of experiments.

    Args:
        run: The run directory.
        manifest: The content of its `manifest.json`.

    Returns:
        The parts of its page.

    Raises:
        UserError: A file cannot be read.
    """
    run, parts = Path(run), []
    page = PAGES.get(manifest.get("command"))
    found = page(run) if page else None
    if found:
        parts.append(Part(**found, alone=True))
    for name, (sentences, drawings) in FILES.items():
        result = read_json(run / name, ("transition",))
        if result is not None:
            parts.append(Part(sentences(result), (), [_drawn(one, result) for one in drawings]))
    result = manifest.get("result") or {}
    if "by_removed" in result:
        parts.append(
            Part(phasewise_lines(result), [difference_tile(result)], [_drawn(PHASEWISE, result)])
        )
    return parts


def _drawn(drawing: Drawing, result: Mapping[str, Any]) -> dict[str, Any]:
    name, draw, caption = drawing
    return {"name": name, "svg": inline_svg(draw(result), name, caption), "caption": caption}
