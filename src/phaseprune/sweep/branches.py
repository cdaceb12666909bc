"""A walk over the blocks in which other streams branch off from the unchanged model.

Like a pruning step, but what is born at a readout is said by the caller: the state there with
noise, without the block before it, with a block run twice. A stream that is born at readout r costs
L - r block passes, and every block is run on all streams together.

Noise is h + eps * sigma(h) * N(0, I), where sigma(h) is the standard deviation over the hidden
units of one token's state. The normal numbers depend on the seed, the draw, the readout and the
token with all that stands before it, and on nothing else: not on rows, batches, shards or memory.
All levels of a draw use the same ones. Ablations of single blocks are the mean in place of a
block's contribution, a swap with the next block, and a repetition, beside the model without it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.packed import Packing
from phaseprune.progress import Progress, silent
from phaseprune.sweep.rows import Batch, Rows, Shard
from phaseprune.sweep.scoring import read_into
from phaseprune.sweep.states import States, Walker, by_token
from phaseprune.sweep.walk import PassCounter, walk

#: Called as ``born(readout, base, reads, tell)``: the states of the streams that are born at a
#: readout. ``base`` has the unchanged model's states by readout (one stream); with ``reads`` (at L)
#: those of L, and what is given back, are at the reads alone. ``tell`` is the ``progress`` of
#: ``Walker.run`` for what a birth itself runs.
Born = Callable[[int, Mapping[int, States], bool, Callable[[int], None]], States]


@dataclass(frozen=True)
class Births:
    """What branches off.

    Attributes:
        names: for each readout 0 … L, what is born there, in words, as ``noise at readout 3``.
        begin: called for each shard.
        back: how many readouts back a birth looks at the unchanged model.
        passes: block passes that the births themselves take.
    """

    names: Sequence[Sequence[str]]
    begin: Callable[[Walker], Born]
    back: int = 0
    passes: int = 0

    @property
    def streams(self) -> int:
        """Streams at the end, with the unchanged model's."""
        return 1 + sum(map(len, self.names))

    @property
    def block_passes(self) -> int:
        """Of the whole walk."""
        last = len(self.names) - 1
        branches = sum(len(names) * (last - readout) for readout, names in enumerate(self.names))
        return last + branches + self.passes


@dataclass(frozen=True)
class Branches:
    """Scores of the unchanged model and of the branches.

    Attributes:
        base: ``[Q, L+1, K]`` raw option scores at every readout, ``-inf`` where absent.
        scores: ``[Q, B, K]`` those of the branches at the output, in the order of birth.
        block_passes: counted runs of one block over all rows.
    """

    base: np.ndarray
    scores: np.ndarray
    block_passes: int


@torch.no_grad()
def branch_scores(
    decoder: Decoder,
    rows: Rows,
    needs_vocabulary: bool,
    births: Births,
    *,
    progress: Progress = silent,
    label: str = "branches",
) -> Branches:
    """Score the unchanged model at its readouts and all branches at the output, in one walk.

    Args:
        decoder: the model.
        rows: the task's rows.
        needs_vocabulary: see ``scoring.add_scores``.
        births: what branches off where.
        progress: told of each block pass.
        label: for ``progress``.

    Raises:
        UserError: a stream gives NaN; names it and a question.
    """
    questions, options = rows.shape
    room = [len(names) for names in births.names]
    names = [name for some in births.names for name in some]
    base_sums = torch.zeros(len(room), questions * options, dtype=torch.float64)
    sums = torch.zeros(len(names), questions * options, dtype=torch.float64)
    tell = PassCounter(progress, label, births.block_passes * len(rows.batches))
    for shard in rows.shards:
        base: dict[int, States] = {}
        born: Born | None = None
        for here in walk(decoder, shard, room=room, progress=tell):
            number = here.number
            read_into(
                decoder,
                shard,
                here.at_reads(slice(1)),
                needs_vocabulary,
                base_sums[number : number + 1],
                [here.block],
                options,
            )
            born = born or births.begin(here.walker)
            base[number] = [one[:1].clone() for one in here.states]
            base.pop(number - births.back - 1, None)
            if room[number]:
                here.join(born(number, base, here.reads, tell))
            if here.last and names:
                read_into(
                    decoder,
                    shard,
                    here.at_reads(slice(1, None)),
                    needs_vocabulary,
                    sums,
                    names,
                    options,
                )
    return Branches(
        rows.scores(base_sums).transpose(1, 0, 2),
        rows.scores(sums).transpose(1, 0, 2),
        tell.done // len(rows.batches),
    )


def token_noise(
    keys: Keys, seed: int, draw: int, readout: int, shape: Sequence[int]
) -> torch.Tensor:
    """Standard normal numbers for some tokens, on the CPU.

    Args:
        keys: N tokens (``token_keys``); padding gets zeros.
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
        [
            f"noise of sigma^2 {variance:g} at readout {readout}"
            for _ in range(draws)
            for variance in variances
        ]
        for readout in range(blocks + 1)
    ]

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


KINDS = ("mean", "swap", "repeat")


@torch.no_grad()
def mean_contributions(
    decoder: Decoder, rows: Rows, *, progress: Progress = silent
) -> list[torch.Tensor]:
    """Each block's mean contribution, block(h) - h, over the tokens of some rows.

    Tokens that share all that stands before them are one (``token_keys``), so that the mean is
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
    words = {
        "mean": "block {} replaced by its mean",
        "swap": "block {} swapped with the next one",
        "repeat": "block {} repeated",
    }[kind]
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


#: Of each place of a batch the digest of its token and all before it; None for padding.
Keys = list[bytes | None]


def prefix_key(tokens: Sequence[int]) -> bytes:
    """The digest of a token (the last one) and all that stand before it."""
    return _digest(tokens).digest()


def token_keys(shard: Shard) -> list[Keys]:
    """The keys of a shard's tokens, for each batch by place through all of its rows."""
    trunks: dict = {}
    return [
        _plain_keys(batch) if batch.packing is None else _packed_keys(batch.packing, trunks)
        for batch in shard.batches
    ]


def _digest(tokens: Sequence[int], before=None):
    digest = hashlib.blake2b(digest_size=16) if before is None else before.copy()
    digest.update(np.asarray(tokens, dtype="<i4").tobytes())
    return digest


def _plain_keys(batch: Batch) -> Keys:
    """Of padded rows. The last token of each is always read, so padding is what stands behind."""
    rows, length = batch.input_ids.shape
    keys: Keys = [None] * (rows * length)
    ends = {int(place) // length: int(place) % length for place in sorted(batch.reads.tolist())}
    for row, tokens in enumerate(batch.input_ids.tolist()):
        digest = None
        for position, token in enumerate(tokens[: ends[row] + 1]):
            digest = _digest([token], digest)
            keys[row * length + position] = digest.digest()
    return keys


def _packed_keys(packing: Packing, trunks: dict) -> Keys:
    """Of a packed row: the visible tokens of a unit are a path, in the order of the row.

    ``trunks`` has the digests at the end of the trunk units before; this row's are added.
    """
    tokens = packing.tokens[0].cpu().numpy()
    ends = {end - 1: unit for unit, _, end in packing.kept}
    keys: Keys = [None] * len(tokens)
    asking = packing.everyone
    for group, index, visible in zip(packing.groups, asking.index, asking.visible, strict=True):
        before = trunks[group.trunk[-1]] if group.trunk else None
        held = tokens[group.index.cpu().numpy()].reshape(group.units, -1)
        own = visible[:, :, -held.shape[1] :].cpu().numpy()
        places = index.cpu().numpy().reshape(group.units, -1)
        for unit, place in np.argwhere(own.any(axis=-1)):
            digest = _digest(held[unit][own[unit, place]], before)
            token = int(places[unit, place])
            keys[token] = digest.digest()
            if token in ends:
                trunks[ends[token]] = digest
    return keys
