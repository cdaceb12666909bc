"""Option scores from hidden states at the read positions."""

from __future__ import annotations

import torch

from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.readout import read_logits
from phaseprune.sweep.rows import Batch

#: Logits held at once where the whole vocabulary is needed (float32 elements).
LOGIT_ELEMENTS = 2**24


def add_scores(
    decoder: Decoder, batch: Batch, states: torch.Tensor, needs_vocabulary: bool, out: torch.Tensor
) -> None:
    """Add what a batch contributes to the option scores.

    Args:
        decoder: the model.
        batch: its rows and reads.
        states: ``[N, D]`` hidden states at the batch's reads.
        needs_vocabulary: whether an entry's value is the log-probability of its token over the
            vocabulary (texts, and letters with that support) or its plain logit (letters).
        out: ``[Q * K]`` float64 sums on the CPU, added to in place.
    """
    if needs_vocabulary:
        values = _log_probabilities(decoder, batch, states)
    else:
        rows, column = torch.unique(batch.entry_targets, return_inverse=True)
        values = read_logits(decoder, states, rows)[batch.entry_reads, column]
    out.index_add_(0, batch.entry_slots.cpu(), values.cpu().double())


def _log_probabilities(decoder: Decoder, batch: Batch, states: torch.Tensor) -> torch.Tensor:
    """``[E]`` log p(target) at each entry's read, over the whole vocabulary, in chunks of reads."""
    vocabulary = decoder.head.weight.shape[0]
    chunk = max(1, LOGIT_ELEMENTS // vocabulary)
    values = torch.empty(len(batch.entry_reads), device=states.device)
    for start in range(0, len(states), chunk):
        inside = (batch.entry_reads >= start) & (batch.entry_reads < start + chunk)
        logits = read_logits(decoder, states[start : start + chunk])
        normaliser = torch.logsumexp(logits, dim=-1)
        read, target = batch.entry_reads[inside] - start, batch.entry_targets[inside]
        values[inside] = logits[read, target] - normaliser[read]
    return values
