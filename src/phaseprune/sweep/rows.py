"""Token rows: what has to be run so that every option of every question can be scored.

A tree row is a question's context and, behind it, a branch for each option's tokens but the last
(that one is only predicted). Where the model cannot run trees exactly, a plain row is the context
and one option. Equal rows are run once, so the single-token labels of a question share one row.
Rows are sorted by length and padded on the right, which a causal model cannot see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch

from phaseprune.decoder.trees import PADDING
from phaseprune.questions.encode import EncodedQuestion

PAD = 0


@dataclass(frozen=True)
class Batch:
    """Rows of similar length, what is read off them, and where it is added.

    Attributes:
        input_ids: ``[R, T]`` token ids, padded on the right.
        segments: ``[R, T]`` segment numbers (``decoder.trees``), None where no row has branches.
        read_rows, read_positions: ``[N]`` the positions whose hidden state is read.
        entry_reads: ``[E]`` which read an entry looks at,
        entry_targets: ``[E]`` the token that it scores there,
        entry_slots: ``[E]`` and the flat (question, option) slot that it adds to.
    """

    input_ids: torch.Tensor
    segments: torch.Tensor | None
    read_rows: torch.Tensor
    read_positions: torch.Tensor
    entry_reads: torch.Tensor
    entry_targets: torch.Tensor
    entry_slots: torch.Tensor

    def at_reads(self, hidden: torch.Tensor) -> torch.Tensor:
        """``[N, D]`` states at the read positions of a ``[R, T, D]`` hidden state."""
        return hidden[self.read_rows, self.read_positions]


@dataclass(frozen=True)
class Rows:
    """All rows of a task in batches.

    Attributes:
        batches: the batches, longest rows first.
        options: ``[Q]`` number of options.
        repeats: how often each question is put, ``[Q]``; the sums of its scores are divided by it.
        rows: how many rows there are.
        tokens: how many tokens they hold, without padding.
        padded_tokens: and with it.
    """

    batches: tuple[Batch, ...]
    options: np.ndarray
    repeats: np.ndarray
    rows: int
    tokens: int
    padded_tokens: int

    @property
    def shape(self) -> tuple[int, int]:
        """Questions and the largest number of options, (Q, K)."""
        return len(self.options), int(self.options.max())

    @property
    def absent(self) -> np.ndarray:
        """``[Q, K]`` mask of the options that a question does not have."""
        return np.arange(self.shape[1]) >= self.options[:, None]


@dataclass
class _Row:
    """Tokens, their segments, and what is scored: (position, target token, slot)."""

    tokens: tuple[int, ...]
    segments: tuple[int, ...]
    scored: list[tuple[int, int, int]]

    @property
    def branches(self) -> bool:
        return any(self.segments)


def make_rows(
    questions: Sequence[EncodedQuestion],
    batch_tokens: int,
    device: torch.device | str = "cpu",
    tree_tokens: int = 0,
    orders: Sequence[tuple[int, Sequence[int]]] | None = None,
) -> Rows:
    """Lay out the rows of a task.

    Args:
        questions: the encoded questions.
        batch_tokens: the most tokens (with padding) in a batch, unless a single row has more.
        device: where the tensors go.
        tree_tokens: the most tokens in a tree row (``Decoder.tree_tokens``); longer questions, or
            all for 0, get a plain row an option.
        orders: for each entry of ``questions``, which question it puts and the positions at which
            that question has its options; None where each is its own in its own order.
    """
    if orders is None:
        orders = [(n, range(len(q.continuations))) for n, q in enumerate(questions)]
    width = max(len(q.continuations) for q in questions)
    merged: dict[tuple, _Row] = {}
    for question, (number, order) in zip(questions, orders, strict=True):
        as_tree = question.tree_length <= tree_tokens
        lay_out = _tree_row if as_tree else _plain_rows
        for row in lay_out(question, [number * width + option for option in order]):
            same = merged.setdefault((row.tokens, row.segments), row)
            if same is not row:
                same.scored += row.scored
    # Trees and plain rows never share a batch: our mask would replace the model's own in both.
    rows = sorted(merged.values(), key=lambda row: (row.branches, -len(row.tokens)))
    batches, padded = [], 0
    for _, group in groupby(rows, key=lambda row: row.branches):
        ordered = list(group)
        while ordered:
            longest = len(ordered[0].tokens)
            count = max(1, batch_tokens // longest)
            batches.append(_batch(ordered[:count], longest, device))
            padded += longest * len(ordered[:count])
            ordered = ordered[count:]
    options = np.zeros(1 + max(number for number, _ in orders), dtype=int)
    for question, (number, _) in zip(questions, orders, strict=True):
        options[number] = len(question.continuations)
    return Rows(
        batches=tuple(batches),
        options=options,
        repeats=np.bincount([number for number, _ in orders]),
        rows=len(merged),
        tokens=sum(len(row.tokens) for row in merged.values()),
        padded_tokens=padded,
    )


def _plain_rows(question: EncodedQuestion, slots: Sequence[int]) -> Iterator[_Row]:
    last = len(question.context) - 1
    for option, continuation in enumerate(question.continuations):
        tokens = question.context + continuation[:-1]
        scored = [
            (last + i, target, slots[option])
            for i, target in enumerate(continuation)
            if i >= question.first_scored(option)
        ]
        yield _Row(tokens, (0,) * len(tokens), scored)


def _tree_row(question: EncodedQuestion, slots: Sequence[int]) -> Iterator[_Row]:
    row = _Row(question.context, (0,) * len(question.context), [])
    last = len(question.context) - 1
    for option, continuation in enumerate(question.continuations):
        places = [last, *range(len(row.tokens), len(row.tokens) + len(continuation) - 1)]
        row.scored += [
            (place, target, slots[option])
            for place, target in zip(places, continuation, strict=True)
        ][question.first_scored(option) :]
        row.tokens += continuation[:-1]
        row.segments += (option + 1,) * (len(continuation) - 1)
    yield row


def _batch(rows: Sequence[_Row], longest: int, device) -> Batch:
    reads: dict[tuple[int, int], int] = {}
    entries = []
    for number, row in enumerate(rows):
        for position, target, slot in row.scored:
            read = reads.setdefault((number, position), len(reads))
            entries.append((read, target, slot))

    def tensor(values) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.long, device=device)

    def padded(name: str, value: int) -> torch.Tensor:
        filled = [(*getattr(row, name), *[value] * (longest - len(row.tokens))) for row in rows]
        return tensor(filled)

    read_rows, read_positions = zip(*reads, strict=True)
    entry_reads, entry_targets, entry_slots = zip(*entries, strict=True)
    return Batch(
        padded("tokens", PAD),
        padded("segments", PADDING) if rows[0].branches else None,
        tensor(read_rows),
        tensor(read_positions),
        tensor(entry_reads),
        tensor(entry_targets),
        tensor(entry_slots),
    )
