"""Greedy continuations of the model without some blocks, in a few forwards and without a cache.

A KV cache goes wrong when blocks are skipped: families read the number of tokens so far off the
cache of one block, which may be a skipped one. So the model's own forward is run on whole rows, on
a guess of the continuation: all tokens up to the first one that the model would not have chosen are
right, and what it chooses instead is the next guess. Each forward makes one more token sure at
least, and many more where the guess was good (Jacobi decoding, Santilli et al. 2023, arXiv
2305.10427). The result is that of one token at a time, up to float rounding.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch

from phaseprune.decoder.blocks import skipped_blocks
from phaseprune.decoder.decoder import Decoder
from phaseprune.progress import Progress, silent


@torch.no_grad()
def greedy_tokens(
    decoder: Decoder,
    prompts: np.ndarray,
    count: int,
    *,
    removed: Collection[int] = (),
    guess: np.ndarray | None = None,
    rows: int = 32,
    progress: Progress = silent,
    label: str = "continuations",
) -> np.ndarray:
    """The tokens of the highest logit, one after the other; nothing of a generation config is used.

    Args:
        decoder: the model.
        prompts: ``[N, P]`` tokens.
        count: T, how many tokens; the end of a text is a token like any other.
        removed: original indices of blocks to do without.
        guess: ``[N, T]`` to begin with, as those of a similar model; changes the work alone.
        rows: prompts in one forward.
        progress: told of the tokens that are sure.
        label: for ``progress``.

    Returns:
        ``[N, T]`` tokens.
    """
    given = torch.as_tensor(prompts)
    start = np.zeros((len(prompts), count), dtype=np.int64) if guess is None else guess
    tokens = torch.as_tensor(np.array(start, dtype=np.int64))
    sure = torch.zeros(len(given), dtype=torch.long)
    places = torch.arange(count)
    with skipped_blocks(decoder, set(removed)):
        while (sure < count).any():
            for part in (sure < count).nonzero()[:, 0].split(rows):
                row = torch.cat([given[part], tokens[part, :-1]], dim=1).to(decoder.device)
                logits = decoder.model(input_ids=row, use_cache=False).logits
                chosen = logits[:, given.shape[1] - 1 :].argmax(dim=-1).cpu()
                fixed = places < sure[part, None]  # rounding of another batch must undo nothing
                chosen = torch.where(fixed, tokens[part], chosen)
                right = (chosen == tokens[part]).long().cumprod(dim=1).sum(dim=1)
                tokens[part] = chosen
                sure[part] = (right + 1).clamp(max=count)
                progress(label, int(sure.sum()), len(given) * count)
    return tokens.numpy()
