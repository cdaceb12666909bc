"""Packed rows in training: a part's logits, and whether they and their gradients are exact."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.trainable import autocast, logits_at, trained_weights
from phaseprune.decoder.verify import TOLERANCE
from phaseprune.errors import UserError
from phaseprune.healing.data import Part
from phaseprune.sweep.probe import packed_length, trial_shards
from phaseprune.sweep.rows import Shard


def part_logits(decoder: Decoder, part: Part, dtype: torch.dtype) -> torch.Tensor:
    """``[N, V]`` logits at the reads of a part, float32; gradients flow through them.

    Args:
        decoder: the model.
        part: whose rows are run, packed or plain.
        dtype: what the model runs in.
    """
    return _logits(decoder, part.shard, dtype)


def trained_length(decoder: Decoder, teacher: Decoder | None, dtype: torch.dtype) -> int:
    """The most tokens of a sequence in a packed row of training; 0 for plain rows alone.

    Beside what scoring asks (``sweep.probe.packed_length``), the model's whole forward is tried as
    it is trained: logits and gradients of packed rows must be those of plain ones.

    Args:
        decoder: the model, made trainable.
        teacher: the full model that is run on the same rows, if one is.
        dtype: what they run in.

    Raises:
        UserError: a model that cannot be run at all.
    """
    models = [decoder] if teacher is None else [decoder, teacher]
    length = min(map(packed_length, models))
    try:
        return length if length and all(_exact(model, dtype) for model in models) else 0
    except (UserError, torch.OutOfMemoryError):  # says nothing of the family
        raise
    except Exception:  # noqa: BLE001 - a family that has no gradients here raises anything
        return 0


def _exact(decoder: Decoder, dtype: torch.dtype) -> bool:
    """Whether the trial's logits and the gradients of a loss on them are those of plain rows."""
    ours, theirs = (_tried(decoder, shard, dtype) for shard in trial_shards(decoder))
    most = TOLERANCE[dtype] * max(1.0, float(theirs[0].abs().max()))
    if not float((ours[0] - theirs[0]).abs().max()) <= most:
        return False
    apart = _norm([a - b for a, b in zip(ours[1:], theirs[1:], strict=True)])
    return apart <= TOLERANCE[dtype] * _norm(theirs[1:])


def _tried(decoder: Decoder, shard: Shard, dtype: torch.dtype) -> list[torch.Tensor]:
    """Logits in the order of the slots; then, if it has trained weights, their gradients."""
    weights = list(trained_weights(decoder).values())
    logits = _logits(decoder, shard, dtype)[shard.entry_reads[shard.entry_slots.argsort()]]
    loss = -logits.log_softmax(dim=-1)[:, 0].sum()
    gradients = (
        torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        if weights
        else ()
    )
    return [logits.detach(), *gradients]


def _norm(tensors: Sequence[torch.Tensor]) -> float:
    return float(sum(tensor.double().square().sum() for tensor in tensors)) ** 0.5


def _logits(decoder: Decoder, shard: Shard, dtype: torch.dtype) -> torch.Tensor:
    trunk: dict = {}
    with autocast(decoder, dtype):
        found = [
            logits_at(decoder, batch.input_ids, batch.reads, batch.packing, trunk)
            for batch in shard.batches
        ]
    return torch.cat(found)
