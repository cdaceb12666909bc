"""Layer Collapse on a model: merges found by what they leave of the last hidden states."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch.nn import functional

from phaseprune.decision.laco import (
    Merge,
    collapse,
    gone,
    largest_threshold,
    mixtures,
    most_merged,
)
from phaseprune.decoder.blocks import Calls, record_calls, run_block
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.merged import check_mergeable, merged_blocks
from phaseprune.decoder.readout import head_inputs
from phaseprune.errors import UserError
from phaseprune.methods.costs import THRESHOLDS
from phaseprune.progress import Progress, silent
from phaseprune.questions.question import Task
from phaseprune.sweep.measure import encode_inputs
from phaseprune.sweep.memory import state_budget, stream_bytes

#: The search looks at a few sequences only, as published: the first one of so many questions or
#: windows.
SAMPLES = 10


def check_merges(decoder: Decoder, number: int, protect: Collection[int]) -> None:
    """Refuse what the search could not come to, before anything is paid for.

    Raises:
        UserError: weights that cannot be merged, or more blocks than merges can take in.
    """
    check_mergeable(decoder)
    blocks = len(decoder.blocks)
    most = most_merged(blocks, protect)
    if number > most:
        beside = " beside those that are protected" if protect else ""
        offer = f"give {'1 to ' if most > 1 else ''}{most}" if most else "choose another method"
        raise UserError(
            f"method laco can merge {most} of the model's {blocks} blocks into others{beside} and "
            f"{number} are to go; {offer}"
        )


def sample_tokens(
    decoder: Decoder, task: Task | None, windows: Sequence[Sequence[int]] | None
) -> list[tuple[int, ...]]:
    """The sequences that are looked at: of questions the prompt, with the first option for texts.

    Args:
        decoder: the model.
        task: the questions; None where windows are looked at.
        windows: of a text.
    """
    if windows is not None:
        return [tuple(window) for window in windows[:SAMPLES]]
    inputs = encode_inputs(task, decoder.tokenizer, decoder.max_length)
    first = {}
    for (number, _), question in zip(inputs.orders, inputs.questions, strict=True):
        first.setdefault(number, (*question.context, *question.continuations[0][:-1]))
    return [first[number] for number in sorted(first)][:SAMPLES]


class Collapsing:
    """The full model's last hidden states of some sequences, and how near merged models come.

    Attributes:
        block_passes: runs of one block over all the sequences so far.
    """

    def __init__(self, decoder: Decoder, samples: Sequence[Sequence[int]]):
        """Run the full model over ``samples``, keeping its states where there is room for them."""
        self.decoder, self.block_passes = decoder, 0
        self._calls: list[Calls] = [
            record_calls(decoder, torch.tensor([tokens], device=decoder.device))
            for tokens in samples
        ]
        self._blocks = list(range(len(decoder.blocks)))
        size = stream_bytes(decoder, sum(map(len, samples))) * (len(self._blocks) + 1)
        #: States of the full model by block, of its input; of the first alone without room.
        self._inputs: dict[int, list[torch.Tensor]] = {0: [call.embedded for call in self._calls]}
        states, keep = self._inputs[0], size <= state_budget(decoder)
        for block in self._blocks:
            states = self._run(block, states)
            if keep:
                self._inputs[block + 1] = states
        self._full = self._last(states)
        self._known: dict[tuple, float] = {}

    def similarity(self, merges: tuple[tuple[int, tuple[int, ...]], ...]) -> float:
        """Mean cosine of a merged model's and the full model's last hidden states of a sequence.

        As published, the states of all tokens of a sequence, behind the final norm, are one
        vector. -1 where it is no number. Each merged model is run once.
        """
        if merges not in self._known:
            made = mixtures([Merge(into, blocks) for into, blocks in merges])
            skipped = {block for _, blocks in merges for block in blocks}
            # Merges lie above the last one made, so that the full model's states hold below it.
            first = min(made) if min(made) in self._inputs else 0
            states = self._inputs[first]
            with merged_blocks(self.decoder, made):
                for block in self._blocks[first:]:
                    if block not in skipped:
                        states = self._run(block, states)
            cosines = [
                float(functional.cosine_similarity(one, full, dim=0))
                for one, full in zip(self._last(states), self._full, strict=True)
            ]
            mean = sum(cosines) / len(cosines)
            self._known[merges] = mean if mean == mean else -1.0
        return self._known[merges]

    def _run(self, block: int, states: list[torch.Tensor]) -> list[torch.Tensor]:
        self.block_passes += 1
        return [
            # A block may write into what it is given, which here is kept.
            run_block(self.decoder, block, state.clone(), calls)
            for state, calls in zip(states, self._calls, strict=True)
        ]

    def _last(self, states: list[torch.Tensor]) -> list[torch.Tensor]:
        return [head_inputs(self.decoder, state[0]).flatten() for state in states]


def find_merges(
    decoder: Decoder,
    samples: Sequence[Sequence[int]],
    number: int,
    protect: Collection[int] = (),
    *,
    progress: Progress = silent,
) -> tuple[float, tuple[Merge, ...], int]:
    """The merges that take so many blocks in, at the largest threshold that is found to do so.

    Args:
        decoder: a model that ``check_merges`` lets pass.
        samples: tokens of each sequence.
        number: of blocks that go.
        protect: original indices of blocks that neither go nor change.
        progress: told of each threshold.

    Returns:
        The threshold, the merges in the order in which they are made, and runs of one block over
        all the sequences.
    """
    blocks = len(decoder.blocks)
    collapsing = Collapsing(decoder, samples)
    tried: list[float] = []

    def search(threshold: float) -> tuple[Merge, ...]:
        found = collapse(blocks, threshold, collapsing.similarity, number, protect)
        tried.append(threshold)
        label = f"threshold {threshold:.2f}: {len(gone(found))} blocks merged"
        progress(label, min(len(tried), THRESHOLDS), THRESHOLDS)
        return found

    threshold, merges = largest_threshold(search, number)
    return threshold, merges, collapsing.block_passes
