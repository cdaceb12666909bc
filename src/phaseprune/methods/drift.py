"""What fewer digits changed: the best two candidates of a race, looked at again with all digits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from phaseprune.decision.racing import Race, mean_bound
from phaseprune.decoder.decoder import Decoder
from phaseprune.methods.chunks import Chunk, chunk_figures, on_each
from phaseprune.progress import Progress


def bound_drift(
    decoder: Decoder,
    chunks: Sequence[Chunk],
    objective: str,
    live: Sequence[int],
    candidates: Sequence[int],
    race: Race,
    enough: float,
    progress: Progress,
    label: str,
) -> tuple[float, float]:
    """Bound what fewer digits changed in how much better the best is than the second best.

    More questions are looked at until that is little enough, or all have been.

    Args:
        decoder: the model.
        chunks: the questions in the order drawn.
        objective: what candidates are judged by.
        live: the blocks not removed yet.
        candidates: those of the race.
        race: ended.
        enough: a bound that is little enough.
        progress: told of each block pass.
        label: for ``progress``.

    Returns:
        The upper bound of the change's size on all questions, and block passes.
    """
    means = np.where(race.left, np.nanmean(race.values, axis=1), -np.inf)
    places = sorted(np.argsort(-means, kind="stable")[: min(2, race.left.sum())].tolist())
    blocks = [candidates[place] for place in places]
    label = f"{label}: blocks {', '.join(map(str, blocks))} with all digits"
    seen, bound, passes = np.zeros((len(blocks), 0)), np.inf, 0.0
    for chunk in chunks:
        found, more = chunk_figures(decoder, chunk, live, blocks, None, progress, label)
        passes += more
        seen = np.concatenate([seen, on_each(found, objective)], axis=1)
        change = (seen - race.values[places, : seen.shape[1]])[:, : race.seen]
        difference = change[0] - change[-1] if len(blocks) > 1 else change[0]
        bound = mean_bound(difference, race.ends[-1], race.alpha / len(chunks))
        if bound <= enough or seen.shape[1] >= race.seen:
            break
    return bound, passes
