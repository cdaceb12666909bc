"""Ablations of single blocks: the mean in place of a block's contribution, a swap, a repetition.

Each is a stream that branches off at its block and then runs the rest of the model, beside the one
without the block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from phaseprune.decoder.decoder import Decoder
from phaseprune.progress import Progress, silent
from phaseprune.sweep.branches import Births, Born
from phaseprune.sweep.rows import Rows
from phaseprune.sweep.states import States, Walker, by_token
from phaseprune.sweep.tokens import token_keys
from phaseprune.sweep.walk import PassCounter, walk

KINDS = ("mean", "swap", "repeat")


@torch.no_grad()
def mean_contributions(
    decoder: Decoder, rows: Rows, *, progress: Progress = silent
) -> list[torch.Tensor]:
    """Each block's mean contribution, block(h) - h, over the tokens of some rows.

    Tokens that share all that stands before them are one (``sweep.tokens``), so that the mean is
    the same whether contexts are packed or repeated.

    Returns:
        For each block a float32 tensor of the shape of a token's state.
    """
    count = len(decoder.blocks)
    sums: list[torch.Tensor | int] = [0] * count
    seen: set[bytes] = set()
    tell = PassCounter(progress, "mean contributions", count * len(rows.batches))
    for shard in rows.shards:
        places = []
        for batch, keys in zip(shard.batches, token_keys(shard), strict=True):
            new = [n for n, key in enumerate(keys) if key is not None and _is_new(key, seen)]
            places.append(torch.tensor(new, dtype=torch.long, device=batch.input_ids.device))
        before = None
        for here in walk(decoder, shard, whole=True, progress=tell):
            if here.number:
                for batch, chosen, old, new in zip(
                    shard.batches, places, before, here.states, strict=True
                ):
                    change = by_token(batch, new - old)[0, chosen]
                    sums[here.block] = sums[here.block] + change.cpu().double().sum(dim=0)
            before = here.states
    return [(total / len(seen)).float() for total in sums]


def _is_new(key: bytes, seen: set[bytes]) -> bool:
    """Whether a key was not seen before; it is now."""
    return key not in seen and not seen.add(key)


def ablated_blocks(kind: str, blocks: int) -> tuple[int, ...]:
    """The blocks that an ablation has: all, of a swap those with a next one."""
    return tuple(range(blocks - 1 if kind == "swap" else blocks))


def ablation_births(kind: str, blocks: int, means: Sequence[torch.Tensor] = ()) -> Births:
    """The streams without each block and those with it ablated.

    Args:
        kind: ``mean``, ``swap`` (of a block with the next one; each keeps what it is called with)
            or ``repeat`` (of a block on its own output).
        blocks: L.
        means: from ``mean_contributions``.

    Returns:
        Births of the removals and ablations in the order of ``ablation_order``.
    """
    words = {"mean": "block {} replaced by its mean", "swap": "block {} swapped with the next one",
             "repeat": "block {} repeated"}[kind]  # fmt: skip
    names: list[list[str]] = [[] for _ in range(blocks + 1)]
    for ablation, block in ablation_order(kind, blocks):
        readout = block + 2 if ablation == "swap" else block + 1
        text = f"the model without block {block}" if ablation == "removal" else words.format(block)
        names[readout].append(text)

    def begin(walker: Walker) -> Born:
        def born(
            readout: int, base: Mapping[int, States], reads: bool, tell: Callable[[int], None]
        ) -> States:
            block = readout - 1
            before = base[block]
            removed = walker.at_reads(before) if reads else before
            streams = [removed]
            if kind == "mean":
                mean = means[block]
                streams.append([state + mean.to(state) for state in removed])
            elif kind == "repeat":
                once = walker.run(block, before, progress=tell) if reads else base[readout]
                streams.append(walker.run(block, once, reads=reads, progress=tell))
            elif block:
                swapped = walker.run(block, base[block - 1], progress=tell)
                streams.append(walker.run(block - 1, swapped, reads=reads, progress=tell))
            return [torch.cat(parts) for parts in zip(*streams, strict=True)]

        return born

    own = {"mean": 0, "repeat": blocks + 1, "swap": 2 * (blocks - 1)}[kind]
    return Births(names, begin, back=2 if kind == "swap" else 1, passes=own)


def ablation_order(kind: str, blocks: int) -> list[tuple[str, int]]:
    """``("removal" or the kind, block)`` of the branches, as they are born."""
    order = []
    for readout in range(1, blocks + 1):
        order.append(("removal", readout - 1))
        if kind != "swap":
            order.append((kind, readout - 1))
        elif readout >= 2:
            order.append((kind, readout - 2))
    return order
