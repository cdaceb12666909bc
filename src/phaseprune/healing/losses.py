"""What healing makes smaller.

- ``task``: -log p[gold] of the decision representation (docs/statistics.md), mean over questions.
  For letters that is the cross entropy over the labels' logits, for texts over the options' summed
  log-likelihoods, with the task's normalisation by length.
- ``text``: -log p of the next token of plain text, mean over tokens.
- ``distill``: KL(full model || pruned model) of the distribution over the whole vocabulary, mean
  over the positions that are read: all tokens of a text, or, on questions, those at which options
  are scored (of letters the last one of the prompt, of texts all of each option).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from phaseprune.healing.data import Material, Part

#: ``[N, V]`` logits of a part's reads -> the sum of its losses.
Loss = Callable[[Part, torch.Tensor], torch.Tensor]


def task_loss(material: Material) -> Loss:
    """Sum over questions of -log p[gold] of the decision representation."""

    def loss(part: Part, logits: torch.Tensor) -> torch.Tensor:
        shard = part.shard
        if material.vocabulary:
            logits = logits.log_softmax(dim=-1)
        values = logits[shard.entry_reads, shard.entry_targets]
        width = part.scale.shape[1]
        row = torch.searchsorted(part.examples, shard.entry_slots // width)
        flat = values.new_zeros(part.scale.numel())
        flat = flat.index_add(0, row * width + shard.entry_slots % width, values)
        absent = part.scale.isnan()
        scores = flat.view_as(part.scale) * part.scale.masked_fill(absent, 0.0)
        if material.given:
            return -scores.gather(1, part.gold[:, None]).sum()
        return functional.cross_entropy(
            scores.masked_fill(absent, -torch.inf), part.gold, reduction="sum"
        )

    return loss


def text_loss(part: Part, logits: torch.Tensor) -> torch.Tensor:
    """Sum over predicted tokens of -log p."""
    shard = part.shard
    return functional.cross_entropy(logits[shard.entry_reads], shard.entry_targets, reduction="sum")


def distill_loss(teacher: Callable[[Part], torch.Tensor]) -> Loss:
    """Sum over reads of KL(teacher || student); ``teacher`` gives the full model's logits.

    A read that several options' sequences have in common counts once for each, packed or not.
    """

    def loss(part: Part, logits: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            wanted = teacher(part).log_softmax(dim=-1)
        found = functional.kl_div(
            logits.log_softmax(dim=-1), wanted, reduction="none", log_target=True
        )
        return found.sum(dim=-1) @ part.times

    return loss


def weight(objective: str, part: Part) -> float:
    """How many terms a part's sum has."""
    counts = {
        "task": len(part.examples),
        "text": len(part.shard.entry_slots),
        "distill": float(part.times.sum()),
    }
    return counts[objective]
