"""What candidates are judged on: questions, or windows of plain text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from phaseprune.decoder.decoder import Decoder
from phaseprune.methods.objectives import by_question, figures
from phaseprune.sweep.measure import Prepared, prepare
from phaseprune.sweep.rows import Rows
from phaseprune.sweep.text import text_rows


@dataclass(frozen=True)
class Judge:
    """Rows to run, and the figures that their scores come to.

    Attributes:
        unit: what a figure is of, in the plural: ``questions`` or ``windows``.
        count: how many of them.
        rows: of them all.
        needs_vocabulary: see ``scoring.add_scores``.
        by_unit: from ``[N, K]`` raw scores to ``[N]`` figures of each objective that a part of the
            units has.
        figures: from the same to each objective over all units.
        part: the judge of some of the units, by position, in that order.
    """

    unit: str
    count: int
    rows: Rows
    needs_vocabulary: bool
    by_unit: Callable[[np.ndarray], dict[str, np.ndarray]]
    figures: Callable[[np.ndarray], dict[str, float]]
    part: Callable[[Sequence[int]], Judge]


def question_judge(
    decoder: Decoder, prepared: Prepared, streams: int | None = None
) -> Judge:
    """Judge by the questions of a task; ``streams`` as of ``prepare``, for parts of them."""
    task = prepared.task

    def part(places: Sequence[int]) -> Judge:
        chosen = task.with_questions([task.questions[place] for place in places])
        return question_judge(decoder, prepare(decoder, chosen, streams=streams), streams)

    return Judge(
        "questions", len(task.questions), prepared.rows, prepared.needs_vocabulary,
        lambda scores: by_question(prepared.decide(scores[:, None])),
        lambda scores: figures(prepared.decide(scores[:, None])), part,
    )  # fmt: skip


def text_judge(decoder: Decoder, windows: Sequence[Sequence[int]], rows: Rows) -> Judge:
    """Judge by the loss on windows of plain text, all of the same length."""

    def part(places: Sequence[int]) -> Judge:
        chosen = [windows[place] for place in places]
        return text_judge(decoder, chosen, text_rows(decoder, chosen))

    def by_window(scores: np.ndarray) -> dict[str, np.ndarray]:
        return {"text_loss": -scores[:, 0] / (len(windows[0]) - 1)}

    def figures_of(scores: np.ndarray) -> dict[str, float]:
        return {name: float(values.mean()) for name, values in by_window(scores).items()}

    return Judge("windows", len(windows), rows, True, by_window, figures_of, part)
