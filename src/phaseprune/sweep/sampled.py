"""Hidden states at all tokens of some rows, at every readout."""

from __future__ import annotations

import numpy as np
import torch

from phaseprune.decoder.decoder import Decoder
from phaseprune.errors import UserError
from phaseprune.progress import Progress, silent
from phaseprune.sweep.rows import Batch, Rows
from phaseprune.sweep.states import States, by_token
from phaseprune.sweep.walk import PassCounter, walk


def token_places(batch: Batch) -> np.ndarray:
    """``[M]`` places of a batch's tokens, counted through its rows; no padding."""
    rows, length = batch.input_ids.shape
    if batch.packing is not None:
        return np.arange(length)
    reads = batch.reads.cpu().numpy()
    # A plain row ends with a token that is read.
    ends = [reads[reads // length == row].max() % length for row in range(rows)]
    return np.concatenate([row * length + np.arange(end + 1) for row, end in enumerate(ends)])


def draw_tokens(rows: Rows, most: int, seed: int) -> list[np.ndarray]:
    """Places of each batch (of all shards in order) to take: those read, and others by seed.

    Args:
        rows: of a task.
        most: how many tokens in all, about.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    reads = sum(len(batch.reads) for batch in rows.batches)
    share = max(0.0, (most - reads) / max(1, rows.tokens - reads))
    drawn = []
    for batch in rows.batches:
        read = batch.reads.cpu().numpy()
        if reads > most:
            read = read[rng.random(len(read)) < most / reads]
        places = token_places(batch)
        others = places[rng.random(len(places)) < share]
        drawn.append(np.union1d(read, others))
    return drawn


@torch.no_grad()
def token_states(
    decoder: Decoder,
    rows: Rows,
    most: int,
    seed: int,
    *,
    progress: Progress = silent,
    label: str = "states",
) -> torch.Tensor:
    """Walk the full model over rows and take its states at tokens.

    Args:
        decoder: the model.
        rows: of a task.
        most: how many tokens, about; the read ones come first.
        seed: of the draw.
        progress: told of each block.
        label: for ``progress``.

    Returns:
        ``[L+1, T, D]`` in the model's dtype, on its device.

    Raises:
        UserError: a family with several states a token, or NaN.
    """
    drawn = iter(draw_tokens(rows, most, seed))
    found: list[torch.Tensor] = []
    tell = PassCounter(progress, label, len(rows.batches) * len(decoder.blocks))
    for shard in rows.shards:
        places = [
            torch.as_tensor(next(drawn), device=decoder.device, dtype=torch.long)
            for _ in shard.batches
        ]
        found.append(torch.stack([
            _taken(shard.batches, here.states, places)
            for here in walk(decoder, shard, whole=True, progress=tell)
        ]))  # fmt: skip
    together = torch.cat(found, dim=1)
    if together.dim() != 3:
        raise UserError(
            f"{decoder.name}: --lens tuned needs one hidden state a token, and this family has "
            f"{together.shape[2]}; use --lens logit"
        )
    if not torch.isfinite(together).all():
        readout = int((~torch.isfinite(together)).flatten(1).any(dim=1).nonzero()[0, 0])
        place = f"block {readout - 1}" if readout else "the embeddings"
        raise UserError(
            f"{decoder.name}: {place} gives NaN or infinite values on a calibration question; try "
            "--dtype float32"
        )
    return together


def _taken(batches: tuple[Batch, ...], states: States, places: list[torch.Tensor]) -> torch.Tensor:
    """``[T, D]`` states of the one stream at the chosen places of all batches."""
    parts = zip(batches, states, places, strict=True)
    return torch.cat([by_token(batch, state)[0, at] for batch, state, at in parts])
