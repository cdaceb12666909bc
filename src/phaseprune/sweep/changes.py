"""What each block does to hidden states, from one walk: the figures that one-shot methods rank by.

Every token of every distinct sequence that a question is put as (its options' for texts, its prompt
for letters), or of every window of a text, counts once, whether rows are packed or plain. States
are taken as they pass: what is held beside them are a shard's states at the ends of its sequences
and at most ``EXAMPLES`` drawn ones.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from phaseprune.decision.similarity import LEAST_EXAMPLES, cka, hsic_vectors
from phaseprune.decoder.decoder import Decoder
from phaseprune.errors import UserError
from phaseprune.progress import Progress, silent
from phaseprune.questions.question import Task
from phaseprune.sweep.measure import encode_inputs
from phaseprune.sweep.memory import batch_tokens, refuse_unfit, shard_tokens
from phaseprune.sweep.probe import packed_length
from phaseprune.sweep.rows import Rows, Shard, lay_out
from phaseprune.sweep.scoring import first_bad
from phaseprune.sweep.walk import PassCounter, Readout, walk

#: States that CKA is taken over at most, and how many a question or window gives at most.
EXAMPLES, ROUNDS = 256, 8
#: Tokens whose states are turned into float64 at once.
CHUNK = 1024


@dataclass(frozen=True)
class Sequences:
    """Token sequences laid out so that the state of each of their tokens is read.

    Attributes:
        rows: an entry a token: its slot is the sequence, its target the place in that.
        lengths: ``[U, K]`` tokens of each sequence of each question or window; 0 where absent.
        unit: what is put, ``question`` or ``window``.
    """

    rows: Rows
    lengths: np.ndarray
    unit: str


@dataclass(frozen=True)
class Changes:
    """What blocks do to hidden states; NaN for blocks that are removed.

    Attributes:
        influence: ``[L]`` 1 - mean over tokens of the cosine of a block's input and output (Block
            Influence, arXiv 2403.03853).
        relative: ``[L]`` mean over tokens of the length of what a block adds over the length of its
            output (arXiv 2312.09299).
        angles: ``[n+1, n+1]`` mean over sequences of the angle over pi, in [0, 1], of their last
            token's states at every two readouts of the n blocks that are left (arXiv 2403.17887).
        cka: ``[L]`` linear CKA of input and output, debiased, over drawn tokens.
        block_passes: counted runs of one block over all rows.
    """

    influence: np.ndarray
    relative: np.ndarray
    angles: np.ndarray
    cka: np.ndarray
    block_passes: int


#: Shown a shard, the places of its tokens, a readout, and ``[N, D]`` states of all of its tokens.
See = Callable[[Shard, "Places", int, torch.Tensor], None]


def task_sequences(decoder: Decoder, task: Task) -> Sequences:
    """The distinct sequences that a task's questions are put as.

    Raises:
        UserError: a question cannot be put to this model, or does not fit into the stated memory.
    """
    inputs = encode_inputs(task, decoder.tokenizer, decoder.max_length)
    put: list[dict[tuple[int, ...], None]] = [{} for _ in task.questions]
    for (number, _), question in zip(inputs.orders, inputs.questions, strict=True):
        for continuation in question.continuations:
            put[number][question.context + continuation[:-1]] = None
    return _laid_out(decoder, [list(sequences) for sequences in put], "question")


def window_sequences(decoder: Decoder, windows: Sequence[Sequence[int]]) -> Sequences:
    """The windows of a text.

    Raises:
        UserError: a window does not fit into the stated memory.
    """
    return _laid_out(decoder, [[tuple(window)] for window in windows], "window")


def _laid_out(decoder: Decoder, put: Sequence[Sequence[tuple[int, ...]]], unit: str) -> Sequences:
    options = np.array([len(sequences) for sequences in put])
    lengths = np.zeros((len(put), options.max()), dtype=int)
    read = []
    for unit_number, sequences in enumerate(put):
        first = unit_number * options.max()
        lengths[unit_number, : len(sequences)] = [len(tokens) for tokens in sequences]
        read.append(
            [
                (tokens, [(place, place, first + number) for place in range(len(tokens))])
                for number, tokens in enumerate(sequences)
            ]
        )
    rows = lay_out(
        read,
        options,
        np.ones_like(options),
        batch_tokens(decoder),
        decoder.device,
        packed_length(decoder),
        shard_tokens(decoder),
    )
    refuse_unfit(decoder, rows)
    return Sequences(rows, lengths, unit)


def draw_examples(sequences: Sequences, seed: int) -> np.ndarray:
    """The tokens that CKA is taken over.

    Every question or window gives one token to each round, so that the examples of a round are
    independent, as the unbiased HSIC asks.

    Args:
        sequences: what is read.
        seed: of the draw.

    Returns:
        ``[P, n, 2]`` sequence (counted through all slots) and place of each, P rounds of n; a unit
        with fewer than P tokens begins again.
    """
    units, width = sequences.lengths.shape
    chosen = np.arange(units)
    if units > EXAMPLES:
        chosen = np.sort(np.random.default_rng(seed).choice(units, EXAMPLES, replace=False))
    rounds = max(1, min(ROUNDS, EXAMPLES // len(chosen)))
    drawn = []
    for unit in chosen:
        tokens = np.array(
            [
                (unit * width + number, place)
                for number, length in enumerate(sequences.lengths[unit])
                for place in range(length)
            ]
        )
        order = np.random.default_rng([seed, int(unit)]).permutation(len(tokens))
        drawn.append(tokens[np.resize(order, rounds)])
    return np.stack(drawn, axis=1)


@torch.no_grad()
def block_changes(
    decoder: Decoder,
    sequences: Sequences,
    *,
    removed: Collection[int] = (),
    seed: int = 0,
    see: See = lambda *seen: None,
    progress: Progress = silent,
    label: str = "hidden states",
) -> Changes:
    """Measure what every block does to the states of the (pruned) model, in one walk.

    Args:
        decoder: the model.
        sequences: from ``task_sequences`` or ``window_sequences``.
        removed: blocks to skip.
        seed: of the tokens that CKA is taken over.
        see: shown the states as they pass.
        progress: told of each block.
        label: for ``progress``.

    Raises:
        UserError: a block gives NaN; names the block and a question or window.
    """
    count, rows = len(decoder.blocks), sequences.rows
    live = [block for block in range(count) if block not in removed]
    cosines, relative = np.full(count, np.nan), np.full(count, np.nan)
    cosines[live] = relative[live] = 0.0
    angles = np.zeros((len(live) + 1, len(live) + 1))
    examples = _Examples(draw_examples(sequences, seed))
    tell = PassCounter(progress, label, len(rows.batches) * len(live))
    for shard in rows.shards:
        weights = torch.bincount(shard.entry_reads, minlength=shard.reads).double()
        places, before, ends = Places(shard), None, []
        for readout, here in enumerate(walk(decoder, shard, [removed], whole=True, progress=tell)):
            after = _at_tokens(here, sequences)
            if before is not None:
                cosine, added = _changes(before, after, weights)
                cosines[here.block] += cosine
                relative[here.block] += added
            ends.append(after[places.ends])
            examples.take(places, readout, after)
            see(shard, places, readout, after)
            before = after
        angles += _angles(torch.stack(ends, dim=1))
    tokens = int(sequences.lengths.sum())
    found = np.full(count, np.nan)
    found[live] = examples.cka()
    return Changes(
        influence=1 - cosines / tokens,
        relative=relative / tokens,
        angles=angles / np.count_nonzero(sequences.lengths),
        cka=found,
        block_passes=tell.done // len(rows.batches),
    )


class Places:
    """Where a shard's reads stand in their sequences."""

    def __init__(self, shard: Shard):
        slots, self.reads = shard.entry_slots.cpu().numpy(), shard.entry_reads.cpu().numpy()
        places = shard.entry_targets.cpu().numpy()
        self.order = np.lexsort((places, slots))
        self.keys = slots[self.order].astype(np.int64) << 32 | places[self.order]
        last = np.append(np.flatnonzero(np.diff(slots[self.order])), len(slots) - 1)
        #: Reads of the last token of each sequence.
        self.ends = self.reads[self.order[last]]

    def find(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of ``[E, 2]`` tokens (sequence, place) are here, and their reads."""
        keys = tokens[:, 0].astype(np.int64) << 32 | tokens[:, 1]
        at = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        here = np.flatnonzero(self.keys[at] == keys)
        return here, self.reads[self.order[at[here]]]


class _Examples:
    """States of the drawn tokens, by readout."""

    def __init__(self, drawn: np.ndarray):
        self.rounds, self.each = drawn.shape[:2]
        self.tokens = drawn.reshape(-1, 2)
        self.states: list[np.ndarray] = []

    def take(self, places: Places, readout: int, states: torch.Tensor) -> None:
        """Take those that are among the ``[N, D]`` states of a shard."""
        here, reads = places.find(self.tokens)
        if len(self.states) == readout:
            self.states.append(np.empty((len(self.tokens), states.shape[1]), dtype=np.float32))
        self.states[readout][here] = states[reads].float().cpu().numpy()

    def cka(self) -> np.ndarray:
        """``[n]`` of neighbouring readouts; NaN where there are too few examples."""
        if self.each < LEAST_EXAMPLES:
            return np.full(len(self.states) - 1, np.nan)
        cross, own, before = [], [], None
        for states in self.states:
            vectors = hsic_vectors(states.reshape(self.rounds, self.each, -1)).ravel()
            own.append(vectors @ vectors)
            if before is not None:
                cross.append(before @ vectors)
            before = vectors
        pairs = [np.array(part)[:, None] for part in (own[:-1], own[1:])]
        return cka(np.array(cross)[:, None, None], *pairs)[:, 0, 0]


def _at_tokens(here: Readout, sequences: Sequences) -> torch.Tensor:
    """``[N, D]`` states of all tokens of a shard; refuses what is no number."""
    read = here.at_reads()
    bad = first_bad(here.walker.shard, read)
    if bad is not None:
        place = f"block {here.block}" if here.number else "the embeddings"
        raise UserError(
            f"{here.walker.decoder.name}: {place} gives NaN or infinite values on "
            f"{sequences.unit} number {bad[1] // sequences.lengths.shape[1]} (0-based); try "
            "--dtype=float32"
        )
    return read[0].flatten(1)


def _changes(
    before: torch.Tensor, after: torch.Tensor, weights: torch.Tensor
) -> tuple[float, float]:
    """Sums over tokens of the cosine, and of the relative length of what was added."""
    cosine = relative = 0.0
    least = torch.finfo(torch.float64).tiny
    for part in torch.arange(len(weights), device=weights.device).split(CHUNK):
        x, y, weight = before[part].double(), after[part].double(), weights[part]
        length = y.norm(dim=-1)
        lengths = (x.norm(dim=-1) * length).clamp_min(least)
        cosine += float(((x * y).sum(dim=-1) / lengths) @ weight)
        relative += float(((y - x).norm(dim=-1) / length.clamp_min(least)) @ weight)
    return cosine, relative


def _angles(ends: torch.Tensor) -> np.ndarray:
    """``[R, R]`` sum over sequences of the angles over pi, of ``[S, R, D]`` states."""
    total = 0.0
    for part in ends.split(max(1, CHUNK // ends.shape[1])):
        unit = torch.nn.functional.normalize(part.double(), dim=-1)
        cosines = (unit @ unit.transpose(-1, -2)).clamp(-1, 1)
        total = total + (torch.arccos(cosines) / torch.pi).sum(dim=0)
    return total.fill_diagonal_(0).cpu().numpy()
