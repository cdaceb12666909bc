"""Traces of a model from which ever more is removed: what two have in common is read once.

The readouts before the first block in which two models differ are the same. Reading them is most of
a trace where every read runs over the vocabulary (texts): that of SmolLM2-135M has 49,152 tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from phaseprune.decoder.items import Item, block_of_item, whole_blocks


@dataclass
class LastTrace:
    """The last trace of some rows, which the next one begins with.

    Attributes:
        removed: blocks, or halves of blocks, that the traced model was without.
        raw: ``[Q, L+1, K]`` raw scores at its readouts; None before the first trace.
    """

    removed: frozenset[Item] = frozenset()
    raw: np.ndarray | None = None

    def then(
        self, removed: Collection[Item], trace: Callable[[np.ndarray | None], np.ndarray]
    ) -> np.ndarray:
        """Trace the model without some blocks or halves, its weights otherwise as they were.

        Args:
            removed: what the model is without.
            trace: gives its raw scores; told those of its first readouts, as
                ``walk.trace_scores`` takes them.
        """
        raw = trace(self._common(frozenset(removed)))
        self.removed, self.raw = frozenset(removed), raw
        return raw

    def _common(self, removed: frozenset[Item]) -> np.ndarray | None:
        """The scores of the readouts that a model has in common with the last."""
        if self.raw is None:
            return None
        blocks = self.raw.shape[1] - 1
        changed = min(map(block_of_item, self.removed ^ removed), default=blocks)
        # The last live block runs at the reads alone, which may round differently.
        last = [
            max(set(range(blocks)) - set(whole_blocks(items))) for items in (self.removed, removed)
        ]
        return self.raw[:, : min(changed, *last) + 1]
