"""Chunks of questions (or windows of plain text), and figures of candidates on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from phaseprune.decoder.decoder import Decoder
from phaseprune.methods.judge import Judge
from phaseprune.methods.objectives import SIGNS
from phaseprune.progress import Progress
from phaseprune.sweep.kept import Kept
from phaseprune.sweep.walk import sweep_scores

#: Figures of a question are kept, and compared, with so many digits behind the point.
DIGITS = 6
#: Of each question, the figures of a candidate by objective.
Figures = dict[str, np.ndarray]


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
    products: torch.dtype | None,
    progress: Progress,
    label: str,
) -> tuple[list[Figures], float]:
    """Figures of some candidates on each question of a chunk.

    Args:
        decoder: the model.
        chunk: the questions.
        live: the blocks not removed yet.
        blocks: the candidates.
        products: dtype of the matrix products, None for the model's own.
        progress: told of each block pass.
        label: for ``progress``.

    Returns:
        The figures, and block passes in units of all questions.
    """
    judge = chunk.judge
    # The head's rounding averages out over a window's hundreds of tokens, not over an option's few.
    head = products if judge.unit == "windows" else None
    sweep = sweep_scores(
        decoder, judge.rows, judge.needs_vocabulary, live, candidates=blocks, kept=chunk.kept,
        products=products, head_products=head, progress=progress, label=label,
    )  # fmt: skip
    return [judge.by_unit(scores) for scores in sweep.scores], sweep.block_passes * chunk.share


def on_each(figures: Sequence[Figures], objective: str) -> np.ndarray:
    """``[C, n]`` the objective of each candidate on each question, larger is better."""
    return np.array([SIGNS[objective] * np.round(one[objective], DIGITS) for one in figures])
