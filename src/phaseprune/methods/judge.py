"""What candidates are judged on: questions or windows of plain text, all of them or in chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from phaseprune.decoder.decoder import Decoder
from phaseprune.methods.objectives import SIGNS, by_question, figures
from phaseprune.progress import Progress
from phaseprune.sweep.kept import Kept
from phaseprune.sweep.measure import Prepared, prepare
from phaseprune.sweep.rows import Rows
from phaseprune.sweep.text import text_rows
from phaseprune.sweep.walk import sweep_scores

#: Figures of a question are kept, and compared, with so many digits behind the point.
DIGITS = 6
#: Of each question, the figures of a candidate by objective.
Figures = dict[str, np.ndarray]


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


def question_judge(decoder: Decoder, prepared: Prepared, streams: int | None = None) -> Judge:
    """Judge by the questions of a task; ``streams`` as of ``prepare``, for parts of them."""
    task = prepared.task

    def part(places: Sequence[int]) -> Judge:
        chosen = task.with_questions([task.questions[place] for place in places])
        return question_judge(decoder, prepare(decoder, chosen, streams=streams), streams)

    return Judge(
        "questions",
        len(task.questions),
        prepared.rows,
        prepared.needs_vocabulary,
        lambda scores: by_question(prepared.decide(scores[:, None])),
        lambda scores: figures(prepared.decide(scores[:, None])),
        part,
    )


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


@dataclass
class Chunk:
    """Some questions, their share of the tokens of all, and the states that are kept of them."""

    judge: Judge
    share: float
    kept: Kept


def make_chunks(
    judge: Judge, order: np.ndarray, ends: Sequence[int], kept_bytes: int
) -> list[Chunk]:
    """Cut questions into chunks.

    Args:
        judge: of all questions.
        order: in which they are drawn.
        ends: how many questions there are up to the end of each chunk.
        kept_bytes: of states that may be kept, shared out by tokens.
    """
    pairs = zip([0, *ends], ends, strict=False)
    parts = [judge.part(order[begin:end]) for begin, end in pairs]
    tokens = [part.rows.tokens for part in parts]
    return [
        Chunk(part, count / judge.rows.tokens, Kept(kept_bytes * count // sum(tokens)))
        for part, count in zip(parts, tokens, strict=True)
    ]


def chunk_figures(
    decoder: Decoder,
    chunk: Chunk,
    live: Sequence[int],
    blocks: Sequence[int],
    matmul_dtype: torch.dtype | None,
    progress: Progress,
    label: str,
) -> tuple[list[Figures], float]:
    """Figures of some candidates on each question of a chunk.

    Args:
        decoder: the model.
        chunk: the questions.
        live: the blocks not removed yet.
        blocks: the candidates.
        matmul_dtype: dtype of the matrix products, None for the model's own.
        progress: told of each block pass.
        label: for ``progress``.

    Returns:
        The figures, and block passes in units of all questions.
    """
    judge = chunk.judge
    # The head's rounding averages out over a window's hundreds of tokens, not over an option's few.
    head = matmul_dtype if judge.unit == "windows" else None
    sweep = sweep_scores(
        decoder,
        judge.rows,
        judge.needs_vocabulary,
        live,
        candidates=blocks,
        kept=chunk.kept,
        matmul_dtype=matmul_dtype,
        head_dtype=head,
        progress=progress,
        label=label,
    )
    return [judge.by_unit(scores) for scores in sweep.scores], sweep.block_passes * chunk.share


def on_each(figures: Sequence[Figures], objective: str) -> np.ndarray:
    """``[C, n]`` the objective of each candidate on each question, larger is better."""
    return np.array([SIGNS[objective] * np.round(one[objective], DIGITS) for one in figures])
