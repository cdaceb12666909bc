"""Token rows: what has to be run so that every option of every question can be scored.

Where the model runs packed rows exactly, sequences share what they have in common and a row has
no padding (``sweep.forest``, ``decoder.packed``). Elsewhere a plain row is the context and one
option; equal rows are run once, and rows are sorted by length and padded on the right, which a
causal model cannot see.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from phaseprune.decoder.packed_attention import Packing
from phaseprune.questions.encode import EncodedQuestion
from phaseprune.sweep.forest import Scored, common, cut, merge
from phaseprune.sweep.packing import pack

PAD = 0
#: The most tokens that attend to each other by a dense mask of their own.
UNIT_TOKENS = 256

#: Tokens of a sequence, and what is scored of it.
Sequence_ = tuple[tuple[int, ...], list[Scored]]


@dataclass(frozen=True)
class Batch:
    """Tokens that are run together.

    Attributes:
        packing: the packed row; None for plain rows.
        input_ids: ``[R, T]`` token ids, of plain rows padded on the right; R = 1 where packed.
        reads: ``[N]`` the places whose hidden state is read, counted through all rows.
        tokens: how many, without padding.
    """

    packing: Packing | None
    input_ids: torch.Tensor
    reads: torch.Tensor
    tokens: int


@dataclass(frozen=True)
class Shard:
    """Batches that are walked together, what is read off them, and where it is added.

    Attributes:
        batches: a trunk stands before what needs it.
        entry_reads: ``[E]`` which read an entry looks at, counted through all batches,
        entry_targets: ``[E]`` the token that it scores there,
        entry_slots: ``[E]`` and the flat (question, option) slot that it adds to.
    """

    batches: tuple[Batch, ...]
    entry_reads: torch.Tensor
    entry_targets: torch.Tensor
    entry_slots: torch.Tensor

    @property
    def reads(self) -> int:
        """How many states are read off a stream."""
        return sum(len(batch.reads) for batch in self.batches)


@dataclass(frozen=True)
class Rows:
    """All rows of a task.

    Attributes:
        shards: walked one after the other; nothing is shared between them.
        options: ``[Q]`` number of options.
        repeats: how often each question is put, ``[Q]``; the sums of its scores are divided by it.
    """

    shards: tuple[Shard, ...]
    options: np.ndarray
    repeats: np.ndarray

    @property
    def batches(self) -> list[Batch]:
        """The batches of all shards."""
        return [batch for shard in self.shards for batch in shard.batches]

    @property
    def tokens(self) -> int:
        """Tokens that are run, without padding."""
        return sum(batch.tokens for batch in self.batches)

    @property
    def padded_tokens(self) -> int:
        """And with it."""
        return sum(batch.input_ids.numel() for batch in self.batches)

    @property
    def rows(self) -> int:
        """How many rows they stand in."""
        return sum(len(batch.input_ids) for batch in self.batches)

    @property
    def largest_shard(self) -> int:
        """Tokens of the largest shard, with padding."""
        return max(sum(batch.input_ids.numel() for batch in s.batches) for s in self.shards)

    @property
    def shape(self) -> tuple[int, int]:
        """Questions and the largest number of options, (Q, K)."""
        return len(self.options), int(self.options.max())

    @property
    def absent(self) -> np.ndarray:
        """``[Q, K]`` mask of the options that a question does not have."""
        return np.arange(self.shape[1]) >= self.options[:, None]

    def scores(self, sums: torch.Tensor) -> np.ndarray:
        """``[S, Q, K]`` option scores from ``[S, Q * K]`` sums, ``-inf`` where absent."""
        scores = sums.numpy().reshape(-1, *self.shape) / self.repeats[:, None]
        scores[:, self.absent] = -np.inf
        return scores


def make_rows(
    questions: Sequence[EncodedQuestion],
    batch_tokens: int,
    device: torch.device | str = "cpu",
    packed_length: int = 0,
    orders: Sequence[tuple[int, Sequence[int]]] | None = None,
    shard_tokens: int | None = None,
) -> Rows:
    """Lay out the rows of a task.

    Args:
        questions: the encoded questions.
        batch_tokens: the most tokens (with padding) in a batch, unless a single row has more.
        device: where the tensors go.
        packed_length: the most tokens of a sequence in a packed row (``Decoder.packed_length``);
            longer ones, or all for 0, get a plain row.
        orders: for each entry of ``questions``, which question it puts and the positions at which
            that question has its options; None where each is its own in its own order.
        shard_tokens: the most tokens in a shard, unless a single question has more; None for one
            shard of all.
    """
    if orders is None:
        orders = [(n, range(len(q.continuations))) for n, q in enumerate(questions)]
    width = max(len(q.continuations) for q in questions)
    put = [
        list(option_sequences(question, [number * width + option for option in order]))
        for question, (number, order) in zip(questions, orders, strict=True)
    ]
    options = np.zeros(1 + max(number for number, _ in orders), dtype=int)
    for question, (number, _) in zip(questions, orders, strict=True):
        options[number] = len(question.continuations)
    repeats = np.bincount([number for number, _ in orders])
    return lay_out(put, options, repeats, batch_tokens, device, packed_length, shard_tokens)


def lay_out(
    put: Sequence[list[Sequence_]],
    options: np.ndarray,
    repeats: np.ndarray,
    batch_tokens: int,
    device: torch.device | str,
    packed_length: int,
    shard_tokens: int | None = None,
) -> Rows:
    """Rows of the sequences of each question; other arguments as of ``Rows`` and ``make_rows``."""
    shards = [
        make_shard(sequences, batch_tokens, device, packed_length)
        for sequences in _shards(put, shard_tokens)
    ]
    return Rows(tuple(shards), options, repeats)


def option_sequences(question: EncodedQuestion, slots: Sequence[int]) -> Iterator[Sequence_]:
    """One an option: the context and all of its tokens but the last, which is only predicted."""
    last = len(question.context) - 1
    for option, continuation in enumerate(question.continuations):
        scored = [
            (last + i, target, slots[option])
            for i, target in enumerate(continuation)
            if i >= question.first_scored(option)
        ]
        yield question.context + continuation[:-1], scored


def _shards(put: Sequence[list[Sequence_]], most: int | None) -> Iterator[list[Sequence_]]:
    """Sequences of neighbouring questions, of at most so many tokens.

    Tokens that a sequence shares with the one before it are not counted again.
    """
    shard: list[Sequence_] = []
    size, before = 0, ()
    for sequences in put:
        length, last = 0, before
        for tokens, _ in sequences:
            length += len(tokens) - common(last, tokens)
            last = tokens
        if shard and most is not None and size + length > most:
            yield shard
            shard, size = [], 0
            length += common(before, sequences[0][0])
        shard, before = shard + sequences, last
        size += length
    yield shard


def make_shard(
    sequences: Iterable[Sequence_], batch_tokens: int, device, packed_length: int
) -> Shard:
    """Lay out sequences that are walked together; arguments as of ``make_rows``."""
    packed: list[Sequence_] = []
    plain: dict[tuple[int, ...], list[Scored]] = {}
    for tokens, scored in sequences:
        if len(tokens) <= packed_length:
            packed.append((tokens, scored))
        else:
            plain.setdefault(tokens, []).extend(scored)
    batches, entries, reads = [], [], 0
    for packing, input_ids, length, scored in (
        *_packed(packed, batch_tokens, device), *_padded(plain, batch_tokens, device)
    ):  # fmt: skip
        places = sorted({place for place, _, _ in scored})
        number = {place: reads + read for read, place in enumerate(places)}
        entries += [(number[place], target, slot) for place, target, slot in scored]
        reads += len(places)
        places = torch.tensor(places, dtype=torch.long, device=device)
        batches.append(Batch(packing, input_ids, places, length))
    return Shard(
        tuple(batches), *(torch.tensor(e, device=device) for e in zip(*entries, strict=True))
    )


def _packed(sequences: Sequence[Sequence_], batch_tokens: int, device):
    """Packing, tokens, their number and what is scored, of each packed row."""
    if not sequences:
        return
    units = cut(merge(sequences), min(UNIT_TOKENS, batch_tokens))
    first, size = 0, 0
    for number, unit in enumerate((*units, None)):
        if unit is None or (size and size + len(unit.tokens) > batch_tokens):
            packing, scored = pack(units, first, number, device)
            yield packing, packing.tokens, size, scored
            first, size = number, 0
        size += len(unit.tokens) if unit else 0


def _padded(plain: Mapping[tuple[int, ...], list[Scored]], batch_tokens: int, device):
    """The same of plain rows, longest first; what is scored by the place through all rows."""
    rows = sorted(plain.items(), key=lambda row: -len(row[0]))
    while rows:
        longest = len(rows[0][0])
        count = max(1, batch_tokens // longest)
        filled = [tokens + (PAD,) * (longest - len(tokens)) for tokens, _ in rows[:count]]
        scored = [
            (number * longest + position, target, slot)
            for number, (_, entries) in enumerate(rows[:count])
            for position, target, slot in entries
        ]
        length = sum(len(tokens) for tokens, _ in rows[:count])
        yield None, torch.tensor(filled, device=device), length, scored
        rows = rows[count:]
