"""What a method leaves of a model: which blocks are gone, and which of the others took some in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from phaseprune.decision.laco import mixtures, read_merges, read_mixtures, written
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.merged import merged_blocks


@dataclass(frozen=True)
class Pruned:
    """A pruned model; equal ones are the same model.

    Attributes:
        blocks: removed, original indices, rising.
        merged: (block that stays, ((original block, how often its weights count), …)) of each block
            that took some of them in, rising; empty where no weights changed.
    """

    blocks: tuple[int, ...] = ()
    merged: tuple[tuple[int, tuple[tuple[int, int], ...]], ...] = ()

    def line(self) -> dict[str, Any]:
        """As lines of ``candidates.jsonl`` and ``guards.jsonl`` have it."""
        told = {} if not self.merged else {"merged": self.written}
        return {"blocks": list(self.blocks)} | told

    @property
    def written(self) -> dict[str, dict[str, int]] | None:
        """The merged blocks as JSON has them; None where there are none."""
        return written({into: dict(of) for into, of in self.merged}) or None

    def without(self, blocks: range) -> list[bool]:
        """Of each block whether it is gone: neighbours in this order share their first blocks."""
        return [block in self.blocks for block in blocks]


def of_line(line: Mapping[str, Any]) -> Pruned:
    """A pruned model from what ``Pruned.line`` made of it."""
    return _pruned(line["blocks"], read_mixtures(line.get("merged")))


def of_ranking(ranking: Mapping[str, Any], number: int) -> Pruned:
    """What a ranking leaves once so many blocks are gone.

    Args:
        ranking: a line of ``rankings.jsonl``.
        number: of blocks, no more than it has.
    """
    order = ranking["by_number"][number - 1] if "by_number" in ranking else ranking["order"]
    made = mixtures(read_merges(ranking.get("merges", ())), number)
    return _pruned(order[:number], made)


def _pruned(blocks: list[int], made: Mapping[int, Mapping[int, int]]) -> Pruned:
    merged = tuple((into, tuple(sorted(made[into].items()))) for into in sorted(made))
    return Pruned(tuple(sorted(blocks)), merged)


@contextmanager
def in_place(decoder: Decoder, one: Pruned) -> Iterator[None]:
    """Have merged blocks' weights in place while the context lasts; it skips no blocks."""
    with merged_blocks(decoder, {into: dict(of) for into, of in one.merged}):
        yield
