"""What tells a token from others, in whatever row, batch or shard it stands.

A causal model's state of a token follows from the token and all that stands before it. Tokens that
share this, as those of a common context do, are one token in packed rows and several in plain ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from phaseprune.decoder.packed_attention import Packing
from phaseprune.sweep.rows import Batch, Shard

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
