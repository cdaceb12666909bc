"""What a search removes one at a time: whole blocks, or halves of blocks, and models without some.

The sweep over halves is that over blocks: the same walk, in which every half is a step of its own.
A stream that skips a half is born at that half as a copy of the base before it, and every half is
run on all streams that are there. So a step over n live halves takes n(n+1)/2 runs of a half, fewer
where states are kept, and its scores are those of skipping the half in the whole model.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import numpy as np

from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.items import Item, all_items, whole_blocks
from phaseprune.decoder.sublayers import (
    Halves,
    find_halves,
    halved,
    running_halves,
    skipped_items,
)
from phaseprune.progress import Progress, silent
from phaseprune.sweep.kept import Kept
from phaseprune.sweep.rows import Rows
from phaseprune.sweep.walk import Sweep, sweep_scores, trace_scores


@dataclass(frozen=True)
class Units:
    """A model and what goes of it one at a time.

    Attributes:
        decoder: the model.
        granularity: what is a candidate (``decoder.items.GRANULARITIES``).
        view: the model as a row of what can go; the model itself where that is blocks. Rows to
            sweep over are laid out for it.
        halves: from ``find_halves``; None where blocks go.
    """

    decoder: Decoder
    granularity: str
    view: Decoder = field(repr=False)
    halves: Halves | None = field(repr=False, default=None)

    @property
    def names(self) -> list[Item]:
        """All candidates of the granularity, in the order in which they run."""
        return all_items(self.granularity, len(self.decoder.blocks))

    @property
    def row(self) -> list[Item]:
        """What ``view`` is a row of: blocks, or halves of both kinds."""
        kind = "block" if self.halves is None else "sublayer"
        return all_items(kind, len(self.decoder.blocks))

    def running(self) -> AbstractContextManager[Decoder]:
        """The view, while the context lasts, in which it can be run."""
        return nullcontext(self.view) if self.halves is None else running_halves(self.view)

    def without(self, removed: Sequence[Item]) -> AbstractContextManager[None]:
        """Run the model without some halves for a while; walks skip blocks themselves."""
        if self.halves is None:
            return nullcontext()
        return skipped_items(self.decoder, self.halves, removed)

    def sweep(
        self,
        rows: Rows,
        needs_vocabulary: bool,
        removed: Collection[Item],
        candidates: Sequence[Item],
        *,
        kept: Kept | None = None,
        progress: Progress = silent,
        label: str = "",
    ) -> Sweep:
        """Score candidates "the live model without this one" in one walk.

        Args:
            rows: laid out for ``view``.
            needs_vocabulary: see ``scoring.add_scores``.
            removed: what is gone already.
            candidates: what to score.
            kept: as of ``walk.sweep_scores``.
            progress: told of each run of a block or half.
            label: for ``progress``, what the sweep is for.

        Returns:
            The sweep, whose ``blocks`` are the candidates in the order in which they run, and whose
            ``block_passes`` are runs of a half where halves go.
        """
        row = self.row
        live = [place for place, name in enumerate(row) if name not in removed]
        nouns = "blocks" if self.halves is None else "halves"
        with self.running() as view:
            found = sweep_scores(
                view,
                rows,
                needs_vocabulary,
                live,
                kept=kept,
                progress=progress,
                candidates=[row.index(item) for item in candidates],
                label=f"{label}: sweep over {len(live)} {nouns}",
            )
        return replace(found, blocks=tuple(row[place] for place in found.blocks))

    def trace(
        self,
        rows: Rows,
        needs_vocabulary: bool,
        removed: Sequence[Item],
        *,
        output_only: bool = False,
        known: np.ndarray | None = None,
        progress: Progress = silent,
        label: str = "trace",
    ) -> np.ndarray:
        """``walk.trace_scores`` of the model without some units, at the readouts of its blocks."""
        with self.without(removed):
            return trace_scores(
                self.decoder,
                rows,
                needs_vocabulary,
                removed=whole_blocks(removed),
                output_only=output_only,
                known=known,
                progress=progress,
                label=label,
            )


def open_units(decoder: Decoder, granularity: str = "block") -> Units:
    """A model whose blocks, or halves of blocks, can go one at a time.

    Raises:
        UserError: a model whose blocks have no halves (``find_halves``).
    """
    if granularity == "block":
        return Units(decoder, granularity, decoder)
    halves = find_halves(decoder)
    return Units(decoder, granularity, halved(decoder, halves), halves)
