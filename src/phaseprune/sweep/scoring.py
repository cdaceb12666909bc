"""Option scores from hidden states at the read positions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from phaseprune.decoder.budget import ACCELERATOR_LOGITS, LOGIT_ELEMENTS
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.readout import read_logits
from phaseprune.errors import UserError
from phaseprune.sweep.rows import Shard

#: States that one pass over a part of the head serves.
READS = 1024


def read_into(
    decoder: Decoder,
    shard: Shard,
    states: torch.Tensor,
    needs_vocabulary: bool,
    out: torch.Tensor,
    places: Sequence[int | str],
    options: int,
) -> None:
    """Read streams into ``out``, and refuse NaN by the names of the place and the question.

    ``places`` says of each stream which block it is of (-1 for the embeddings), or what it is;
    ``options`` is K, and the other arguments are those of ``add_scores``.
    """
    bad = first_bad(shard, states)
    if bad is not None:
        stream, slot = bad
        place = places[stream]
        if not isinstance(place, str):
            place = decoder.called(place) if place >= 0 else "the embeddings"
        raise UserError(
            f"{decoder.name}: {place} gives NaN or infinite values on question number "
            f"{slot // options} (0-based); try --dtype=float32"
        )
    add_scores(decoder, shard, states, needs_vocabulary, out)


def first_bad(shard: Shard, states: torch.Tensor) -> tuple[int, int] | None:
    """The first stream and (question, option) slot of ``[S, N, D]`` states that is not finite."""
    if torch.isfinite(states).all():
        return None
    stream, read = (~torch.isfinite(states)).flatten(2).any(dim=-1).nonzero()[0].tolist()
    entry = int((shard.entry_reads == read).nonzero()[0, 0])
    return stream, int(shard.entry_slots[entry])


def add_scores(
    decoder: Decoder, shard: Shard, states: torch.Tensor, needs_vocabulary: bool, out: torch.Tensor
) -> None:
    """Add what a shard contributes to the option scores of some streams.

    Args:
        decoder: the model.
        shard: the rows and reads.
        states: ``[S, N, D]`` hidden states of the streams at the shard's reads (some families have
            several such states a token, ``[S, N, C, D]``).
        needs_vocabulary: whether an entry's value is the log-probability of its token over the
            vocabulary (texts, and letters with that support) or its plain logit (letters).
        out: ``[S, Q * K]`` float64 sums on the CPU, added to in place.
    """
    streams, reads = states.shape[:2]
    flat = states.flatten(0, 1)
    if needs_vocabulary:
        first = torch.arange(streams, device=flat.device)[:, None] * reads
        places = (first + shard.entry_reads).flatten()
        targets = shard.entry_targets.repeat(streams)
        with decoder.placement.fetched(decoder.head):  # once, for all of its parts
            values = log_probabilities(decoder, flat, places, targets)
        values = values.view(streams, -1)
    else:
        rows, column = torch.unique(shard.entry_targets, return_inverse=True)
        logits = read_logits(decoder, flat, rows).view(streams, reads, -1)
        values = logits[:, shard.entry_reads, column]
    out.index_add_(1, shard.entry_slots.cpu(), values.cpu().double())


def log_probabilities(
    decoder: Decoder, states: torch.Tensor, reads: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """``[E]`` log-probability over the vocabulary of a token at a state.

    Args:
        decoder: the model.
        states: ``[N, D]`` hidden states.
        reads: ``[E]`` which state,
        targets: ``[E]`` and which token.
    """
    values = torch.empty(len(reads), device=states.device)
    normaliser = torch.empty(len(states), device=states.device)
    vocabulary = decoder.head.weight.shape[0]
    # A head that is no plain matrix gives all of its logits whatever rows are asked for.
    by_parts = isinstance(decoder.head, nn.Linear)
    roomy = decoder.device.type != "cpu" and decoder.max_memory is None
    most = ACCELERATOR_LOGITS if roomy else LOGIT_ELEMENTS
    count = READS if by_parts else max(1, most // vocabulary)
    width = most // count if by_parts else vocabulary
    for start in range(0, len(states), count):
        chunk = states[start : start + count]
        inside = ((reads >= start) & (reads < start + count)).nonzero()[:, 0]
        sums = torch.full((len(chunk),), -torch.inf, device=states.device)
        for first in range(0, vocabulary, width):
            part = slice(first, min(first + width, vocabulary))
            logits = read_logits(decoder, chunk, part)
            hits = inside[(targets[inside] >= part.start) & (targets[inside] < part.stop)]
            values[hits] = logits[reads[hits] - start, targets[hits] - first]
            sums = torch.logaddexp(sums, _log_sum_exp(logits))
        normaliser[start : start + count] = sums
    return values - normaliser[reads]


def _log_sum_exp(logits: torch.Tensor) -> torch.Tensor:
    """``[N]`` log-sum-exp of rows.

    log_softmax runs over its input once, and is several times faster here than ``logsumexp`` or
    ``exp``, which also crawls where results are denormal.
    """
    sums = logits[:, 0] - torch.log_softmax(logits, dim=-1)[:, 0]
    return sums if torch.isfinite(sums).all() else torch.logsumexp(logits, dim=-1)
