"""The sweep over halves of blocks: the same walk, in which every half is a step of its own.

A stream that skips a half is born at that half as a copy of the base before it, and every half is
run on all streams that are there. So a step over n live halves takes n(n+1)/2 runs of a half, fewer
where states are kept, and its scores are those of skipping the half in the whole model.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.halved import halved, running_halves
from phaseprune.decoder.items import half_items, place_of_item, whole_blocks
from phaseprune.decoder.sublayers import Halves, find_halves, skipped_items
from phaseprune.progress import Progress, silent
from phaseprune.sweep.kept import Kept
from phaseprune.sweep.rows import Rows
from phaseprune.sweep.walk import Sweep, sweep_scores, trace_scores


@dataclass(frozen=True)
class Halved:
    """A decoder and the same as a row of halves.

    Attributes:
        decoder: the model.
        halves: from ``find_halves``.
        view: from ``halved``; use it within ``running_halves``.
    """

    decoder: Decoder
    halves: Halves
    view: Decoder = field(repr=False)

    @property
    def names(self) -> list[str]:
        """All halves of the model, in the order in which they run."""
        return half_items("sublayer", len(self.decoder.blocks))


def open_halves(decoder: Decoder) -> Halved:
    """Find the halves of a decoder's blocks.

    Raises:
        UserError: see ``find_halves``.
    """
    halves = find_halves(decoder)
    return Halved(decoder, halves, halved(decoder, halves))


def sweep_halves(
    model: Halved,
    rows: Rows,
    needs_vocabulary: bool,
    removed: Collection[str],
    candidates: Sequence[str],
    *,
    kept: Kept | None = None,
    progress: Progress = silent,
    label: str = "sweep",
) -> Sweep:
    """Score candidates "the live model without this half" in one walk over the halves.

    Args:
        model: from ``open_halves``.
        rows: laid out for ``model.view``.
        needs_vocabulary: see ``scoring.add_scores``.
        removed: the halves that are gone already.
        candidates: the live halves to score.
        kept: as of ``walk.sweep_scores``.
        progress: told of each run of a half.
        label: for ``progress``.

    Returns:
        The sweep, with halves by their place among all halves, in order, and runs of a half as
        ``block_passes``.
    """
    live = [place for place, name in enumerate(model.names) if name not in removed]
    with running_halves(model.view) as view:
        return sweep_scores(
            view, rows, needs_vocabulary, live, kept=kept, progress=progress, label=label,
            candidates=[place_of_item(item) for item in candidates],
        )  # fmt: skip


def trace_without(
    model: Halved,
    rows: Rows,
    needs_vocabulary: bool,
    removed: Sequence[str],
    *,
    output_only: bool = False,
    known: np.ndarray | None = None,
    progress: Progress = silent,
    label: str = "trace",
) -> np.ndarray:
    """``walk.trace_scores`` of the model without some halves, at the readouts of its blocks."""
    with skipped_items(model.decoder, model.halves, removed):
        return trace_scores(
            model.decoder, rows, needs_vocabulary, removed=whole_blocks(removed),
            output_only=output_only, known=known, progress=progress, label=label,
        )  # fmt: skip
