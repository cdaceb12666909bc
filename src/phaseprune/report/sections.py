"""What the page of a run shows of an experiment that has a file of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from phaseprune.report.ablation_figures import ablation_figure
from phaseprune.report.ablation_tables import ablation_sentences
from phaseprune.report.perturbation_figures import halving_figure, perturbation_figure
from phaseprune.report.perturbation_tables import cost_sentence, phase_sentences
from phaseprune.report.run_files import read_json


@dataclass(frozen=True)
class Section:
    """Sentences of a result, and its figures with name and caption."""

    sentences: Callable[[Mapping[str, Any]], list[str]]
    figures: tuple[tuple[str, Callable[[Mapping[str, Any]], Figure], str], ...]


#: File of a run -> what is shown of it.
SECTIONS = {
    "perturbation.json": Section(
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
    "ablation.json": Section(
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


def read_sections(run: str | Path) -> list[tuple[Section, dict[str, Any]]]:
    """Read the experiments' files of a run.

    Args:
        run: The run directory.

    Returns:
        Each section that the run has with its result.

    Raises:
        UserError: A file cannot be read.
    """
    found = []
    for name, section in SECTIONS.items():
        result = read_json(Path(run) / name, ("transition",))
        if result is not None:
            found.append((section, result))
    return found
