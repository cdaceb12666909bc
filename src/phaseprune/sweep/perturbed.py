"""Noise at a readout: h + eps * sigma(h) * N(0, I), all readouts, levels and draws in one walk.

sigma(h) is the standard deviation over the hidden units of one token's state. The normal numbers
depend on the seed, the draw, the readout and the token with all that stands before it, and on
nothing else: not on rows, batches, shards or memory. All levels of a draw use the same ones.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from phaseprune.sweep.branches import Births, Born
from phaseprune.sweep.states import States, Walker
from phaseprune.sweep.tokens import Keys, token_keys


def token_noise(
    keys: Keys, seed: int, draw: int, readout: int, shape: Sequence[int]
) -> torch.Tensor:
    """Standard normal numbers for some tokens, on the CPU.

    Args:
        keys: N tokens (``sweep.tokens``); padding gets zeros.
        seed: of the run.
        draw: which of its draws.
        readout: where the noise goes.
        shape: of one token's state.

    Returns:
        ``[N, *shape]`` float32: for each token the first numbers of a Philox generator of its own.
    """
    noise = np.zeros((len(keys), int(np.prod(shape))), dtype=np.float32)
    of_all = struct.pack("<qqq", seed, draw, readout)
    for row, key in zip(noise, keys, strict=True):
        if key is not None:
            word = int.from_bytes(hashlib.blake2b(key + of_all, digest_size=16).digest(), "little")
            generator = np.random.Generator(np.random.Philox(key=word))
            generator.standard_normal(dtype=np.float32, out=row)
    return torch.from_numpy(noise).reshape(len(keys), *shape)


def perturbed(
    hidden: torch.Tensor, noise: torch.Tensor, variances: Sequence[float]
) -> torch.Tensor:
    """``[V, N, ..., D]`` states with noise of each variance.

    Args:
        hidden: ``[N, ..., D]`` states.
        noise: standard normal numbers of the same shape.
        variances: sigma^2 = eps^2, in units of the variance over D of each state.
    """
    plain = hidden.float()
    scaled = plain.std(dim=-1, correction=0, keepdim=True) * noise.to(hidden.device)
    return torch.stack([plain + variance**0.5 * scaled for variance in variances]).to(hidden.dtype)


def noise_births(blocks: int, variances: Sequence[float], draws: int, seed: int) -> Births:
    """The noisy streams of all readouts 0 … ``blocks``.

    Args:
        blocks: L.
        variances: of the noise, none of them 0 (that is the model itself).
        draws: how many, each at every readout with every variance.
        seed: of the noise.

    Returns:
        At each readout, draw by draw and in each by variance.
    """
    names = [
        [f"noise of sigma^2 {variance:g} at readout {readout}"
         for _ in range(draws) for variance in variances]
        for readout in range(blocks + 1)
    ]  # fmt: skip

    def begin(walker: Walker) -> Born:
        keys = token_keys(walker.shard)

        def born(
            readout: int, base: Mapping[int, States], reads: bool, tell: Callable[[int], None]
        ) -> States:
            new: States = []
            for number, (batch, (hidden,)) in enumerate(
                zip(walker.shard.batches, base[readout], strict=True)
            ):
                of = keys[number]
                flat = hidden
                if reads:
                    of = [of[place] for place in batch.reads.tolist()]
                elif batch.packing is None:
                    flat = hidden.flatten(0, 1)
                noisy = [
                    perturbed(flat, token_noise(of, seed, draw, readout, flat.shape[1:]), variances)
                    for draw in range(draws)
                ]
                new.append(torch.cat(noisy).view(-1, *hidden.shape))
            return new

        return born

    return Births(names, begin)
