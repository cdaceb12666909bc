"""Token rows: what has to be run so that every option of every question can be scored.

A row is the context and one option's tokens but the last (that one is only predicted); equal rows
are run once, so the single-token labels of a question share one row. Rows are sorted by length and
padded on the right, which a causal model cannot see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from phaseprune.questions.encode import EncodedQuestion

PAD = 0


@dataclass(frozen=True)
class Batch:
    """Rows of similar length, what is read off them, and where it is added.

    Attributes:
        input_ids: ``[R, T]`` token ids, padded on the right.
        read_rows, read_positions: ``[N]`` the positions whose hidden state is read.
        entry_reads: ``[E]`` which read an entry looks at,
        entry_targets: ``[E]`` the token that it scores there,
        entry_slots: ``[E]`` and the flat (question, option) slot that it adds to.
    """

    input_ids: torch.Tensor
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
        rows: how many rows there are.
        tokens: how many tokens they hold, without padding.
        padded_tokens: and with it.
    """

    batches: tuple[Batch, ...]
    options: np.ndarray
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


def make_rows(
    questions: Sequence[EncodedQuestion], batch_tokens: int, device: torch.device | str = "cpu"
) -> Rows:
    """Lay out the rows of a task.

    Args:
        questions: the encoded questions.
        batch_tokens: the most tokens (with padding) in a batch, unless a single row has more.
        device: where the tensors go.
    """
    width = max(len(q.continuations) for q in questions)
    entries: dict[tuple[int, ...], list[tuple[int, int, int]]] = {}
    for number, question in enumerate(questions):
        for option, continuation in enumerate(question.continuations):
            row = entries.setdefault(question.context + continuation[:-1], [])
            start = len(question.context) - 1
            row += [
                (start + offset, target, number * width + option)
                for offset, target in enumerate(continuation)
            ]
    ordered = sorted(entries.items(), key=lambda item: -len(item[0]))
    batches, padded = [], 0
    while ordered:
        longest = len(ordered[0][0])
        count = max(1, batch_tokens // longest)
        batches.append(_batch(ordered[:count], longest, device))
        padded += longest * len(ordered[:count])
        ordered = ordered[count:]
    return Rows(
        batches=tuple(batches),
        options=np.array([len(q.continuations) for q in questions]),
        rows=len(entries),
        tokens=sum(map(len, entries)),
        padded_tokens=padded,
    )


def _batch(rows, longest: int, device) -> Batch:
    reads: dict[tuple[int, int], int] = {}
    entries = []
    for number, (_, scored) in enumerate(rows):
        for position, target, slot in scored:
            read = reads.setdefault((number, position), len(reads))
            entries.append((read, target, slot))

    def tensor(values) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.long, device=device)

    read_rows, read_positions = zip(*reads, strict=True)
    entry_reads, entry_targets, entry_slots = zip(*entries, strict=True)
    return Batch(
        tensor([list(tokens) + [PAD] * (longest - len(tokens)) for tokens, _ in rows]),
        tensor(read_rows),
        tensor(read_positions),
        tensor(entry_reads),
        tensor(entry_targets),
        tensor(entry_slots),
    )
