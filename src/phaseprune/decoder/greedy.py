"""Greedy continuations of the model without some blocks, in a few forwards of whole rows.

A KV cache is no safe ground when blocks are skipped: families read the number of tokens so far off
the cache of one block, which may be a skipped one, and some keep other states. So the model's own
forward is run on whole rows, on a guess of the continuation: all tokens up to the first one that
the model would not have chosen are right, and what it chooses instead is the next guess. Each
forward makes one more token sure at least, and many more where the guess was good (Jacobi decoding,
Santilli et al. 2023, arXiv 2305.10427). The result is that of one token at a time, up to float
rounding. The best guess is what the model says with its cache; one forward then checks all of it.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch

from phaseprune.decoder.blocks import bypassed_blocks, skipped_blocks
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


@torch.no_grad()
def cached_tokens(
    decoder: Decoder,
    prompts: np.ndarray,
    count: int,
    *,
    removed: Collection[int] = (),
    rows: int = 32,
    progress: Progress = silent,
    label: str = "continuations, guessed",
) -> np.ndarray | None:
    """Greedy tokens by the model's KV cache: a guess for ``greedy_tokens``, and no more than that.

    Removed blocks run as well, so that their caches count the tokens, and are not heard.

    Args:
        decoder: the model.
        prompts: ``[N, P]`` tokens.
        count: T, how many tokens.
        removed: original indices of blocks to do without.
        rows: prompts in one forward.
        progress: told of the tokens.
        label: for ``progress``.

    Returns:
        ``[N, T]`` tokens; None where the model returns no KV cache, or its weights are not all in
        one memory (each token would fetch them all again).
    """
    if not decoder.placement.in_place:
        return None
    tokens, done = np.zeros((len(prompts), count), dtype=np.int64), 0
    with bypassed_blocks(decoder, set(removed)):
        for part in np.array_split(np.arange(len(prompts)), -(-len(prompts) // rows)):
            given, cache = torch.as_tensor(prompts[part]).to(decoder.device), {}
            for place in range(count):
                said = decoder.model(input_ids=given, use_cache=True, **cache)
                cache = {"past_key_values": getattr(said, "past_key_values", None)}
                if cache["past_key_values"] is None:
                    return None
                given = said.logits[:, -1:].argmax(dim=-1)
                tokens[part, place] = given[:, 0].cpu()
                done += len(part)
                progress(label, done, tokens.size)
    return tokens
