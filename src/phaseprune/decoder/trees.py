"""Tree-shaped rows: several branches behind one shared beginning, in one row of tokens.

A row has a segment number for each token: 0 is shared, each other number is a branch. A token sees
the shared tokens and those of its own branch before it, and branches restart their positions where
the shared part ends, so each branch is computed as if it alone followed.
"""

from __future__ import annotations

import torch

from phaseprune.decoder.decoder import Decoder

#: Segment of padding, which sees itself alone.
PADDING = -1


def tree_positions(segments: torch.Tensor) -> torch.Tensor:
    """``[R, T]`` position ids: counted through the shared part, restarting for each branch."""
    rows, length = segments.shape
    index = torch.arange(length, device=segments.device).expand(rows, length)
    shared = (segments == 0).sum(dim=1, keepdim=True)
    starts = torch.zeros_like(segments)
    starts[:, 1:] = (segments[:, 1:] != segments[:, :-1]) & (segments[:, 1:] > 0)
    branch_start = torch.cummax(torch.where(starts.bool(), index, 0), dim=1).values
    positions = torch.where(segments > 0, shared + index - branch_start, index)
    return torch.where(segments == PADDING, 0, positions)


def tree_mask(segments: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``[R, 1, T, T]`` additive attention mask: 0 where a token may look, else the least value."""
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    query, key = segments[:, :, None], segments[:, None, :]
    seen = causal & ((key == query) | (key == 0)) & (query != PADDING)
    seen |= torch.eye(length, dtype=torch.bool, device=segments.device)
    mask = torch.zeros(seen.shape, dtype=dtype, device=segments.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


@torch.no_grad()
def longest_tree(decoder: Decoder, tokens: torch.Tensor, tolerance: float) -> int:
    """The most tokens in a tree row that this model runs exactly; 0 where it runs none.

    Tried out: a tree of two branches must give the logits of the two plain rows. Where the
    configuration states a sliding window or an attention chunk, rows are kept within it, since a
    mask of ours would replace the model's own.

    Args:
        decoder: the model.
        tokens: ``[R, T]`` random tokens to try with, T at least 6.
        tolerance: largest difference of logits that counts as equal.
    """
    length = tokens.shape[1]
    shared, branch = length - 2 * (length // 3), length // 3
    segments = torch.tensor([0] * shared + [1] * branch + [2] * branch, device=tokens.device)
    segments = segments.expand(tokens.shape)
    try:
        tree = decoder.model(
            input_ids=tokens,
            position_ids=tree_positions(segments),
            attention_mask=tree_mask(segments, decoder.dtype),
            use_cache=False,
        ).logits.float()
    except Exception:  # noqa: BLE001 - a family that takes no such mask raises anything
        return 0
    for start in (shared, shared + branch):
        alone = torch.cat([tokens[:, :shared], tokens[:, start : start + branch]], dim=1)
        plain = decoder.model(input_ids=alone, use_cache=False).logits.float()
        inside = torch.cat([tree[:, :shared], tree[:, start : start + branch]], dim=1)
        if not float((inside - plain).abs().max()) <= tolerance:
            return 0
    return _shortest_window(decoder.config.get_text_config(decoder=True))


def _shortest_window(config) -> int:
    """The shortest reach of attention that a configuration states, else practically unlimited."""
    windows = [
        value
        for name, value in config.to_dict().items()
        if isinstance(value, int)
        and not isinstance(value, bool)
        and value > 0
        and ("window" in name or "attention_chunk" in name)
        and "layers" not in name
    ]
    return min(windows, default=2**31)
