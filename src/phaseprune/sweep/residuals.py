"""What a model would decide if some blocks had added nothing to the residual stream.

Each block adds something to the hidden state. Taking what some blocks added off the last state,
and reading what is left, says what the decision would be if all other blocks still added what they
add in the full model: for the last blocks exactly what removing them gives, for earlier ones a
prediction, as later blocks would see another state. It costs readouts and no block pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from phaseprune.decoder.decoder import Decoder
from phaseprune.progress import Progress, silent
from phaseprune.sweep.changes import Changes, Places, block_changes, task_sequences
from phaseprune.sweep.measure import Prepared, encode_inputs
from phaseprune.sweep.rows import Shard, option_sequences
from phaseprune.sweep.scoring import add_scores


@dataclass(frozen=True)
class Residuals:
    """States of the full model where options are read, at every readout, from one walk.

    Attributes:
        decoder: the model.
        prepared: the questions.
        parts: of each shard its entries, and ``[L+1, N, D]`` states at its N reads.
        changes: what each block does to all states, from the same walk.
        known: ``[Q, K]`` scores of the sets that were read, by their rising indices.
    """

    decoder: Decoder
    prepared: Prepared
    parts: tuple[tuple[Shard, torch.Tensor], ...]
    changes: Changes
    known: dict[tuple[int, ...], np.ndarray] = field(default_factory=dict, repr=False)

    @torch.no_grad()
    def scores(self, removals: Sequence[Collection[int]]) -> np.ndarray:
        """``[S, Q, K]`` raw option scores with what some blocks added taken off, for each set."""

        def left(states: torch.Tensor, removed: tuple[int, ...]) -> torch.Tensor:
            last = states[-1]
            for block in removed:
                last = last - (states[block + 1] - states[block])
            return last

        sets = [tuple(sorted(removed)) for removed in removals]
        new = [one for one in dict.fromkeys(sets) if one not in self.known]
        self.known.update(zip(new, self._read(new, left), strict=True))
        return np.stack([self.known[one] for one in sets])

    @torch.no_grad()
    def trace_scores(self, progress: Progress = silent) -> np.ndarray:
        """``[Q, L+1, K]`` raw option scores at every readout: a trace."""

        def at(states: torch.Tensor, readout: int) -> torch.Tensor:
            return states[readout]

        readouts = range(len(self.decoder.blocks) + 1)
        return self._read(readouts, at, progress).transpose(1, 0, 2)

    def _read(
        self, wanted: Sequence, states_of: Callable[..., torch.Tensor], progress: Progress = silent
    ) -> np.ndarray:
        questions, options = self.prepared.rows.shape
        sums, done = torch.zeros(len(wanted), questions * options, dtype=torch.float64), 0
        for shard, states in self.parts:
            for number, one in enumerate(wanted):  # one at a time: states of all take much memory
                add_scores(
                    self.decoder,
                    shard,
                    states_of(states, one)[None],
                    self.prepared.needs_vocabulary,
                    sums[number : number + 1],
                )
                done += 1
                progress("readouts of the trace", done, len(wanted) * len(self.parts))
        return self.prepared.rows.scores(sums)


def take_residuals(
    decoder: Decoder, prepared: Prepared, *, seed: int = 0, progress: Progress = silent
) -> Residuals:
    """Walk the full model once over a task's questions and keep what predictions need.

    Args:
        decoder: the model.
        prepared: the questions, from ``measure.prepare``.
        seed: of the tokens that CKA is taken over.
        progress: told of each block.

    Raises:
        UserError: a block gives NaN; names the block and a question.
    """
    tokens, targets, slots = _scored_tokens(decoder, prepared)
    sequences = task_sequences(decoder, prepared.task)
    parts: list[tuple[Shard, list[torch.Tensor]]] = []
    reads: list[np.ndarray] = []

    def see(shard: Shard, places: Places, readout: int, states: torch.Tensor) -> None:
        if readout == 0:
            here, found = places.find(tokens)
            distinct, entries = np.unique(found, return_inverse=True)
            device = states.device
            reads.append(distinct)
            parts.append(
                (
                    replace(
                        shard,
                        entry_reads=torch.as_tensor(entries, device=device),
                        entry_targets=torch.as_tensor(targets[here], device=device),
                        entry_slots=torch.as_tensor(slots[here], device=device),
                    ),
                    [],
                )
            )
        parts[-1][1].append(states[reads[-1]])

    changes = block_changes(
        decoder, sequences, seed=seed, see=see, progress=progress, label="one walk"
    )
    stacked = tuple((shard, torch.stack(states)) for shard, states in parts)
    return Residuals(decoder, prepared, stacked, changes)


def _scored_tokens(
    decoder: Decoder, prepared: Prepared
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``[E, 2]`` sequence and place that each scored token is read at, the token, and its slot.

    Sequences are counted as by ``changes.task_sequences``.
    """
    inputs = encode_inputs(prepared.task, decoder.tokenizer, decoder.max_length)
    width = prepared.rows.shape[1]
    numbers: list[dict[tuple[int, ...], int]] = [{} for _ in prepared.task.questions]
    read = []
    for (number, order), question in zip(inputs.orders, inputs.questions, strict=True):
        known = numbers[number]
        slots = [number * width + option for option in order]
        for put, scored in option_sequences(question, slots):
            sequence = known.setdefault(put, len(known))
            read += [(number, sequence, *entry) for entry in scored]
    unit, sequence, place, target, slot = np.array(read).T
    first = unit * max(len(known) for known in numbers)
    return np.stack([first + sequence, place], axis=1), target, slot
