"""The configuration of a model with some blocks removed, proved to make the kept blocks.

What is per block is cut to the kept blocks. Then the model is built without weights, and each of
its blocks held against the block that it should be. Where they differ, a field counts blocks by
position: it is rewritten if a value is found that makes the right blocks, and the removal is
refused if none is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from phaseprune.decoder.discover import count_blocks, count_field, find_blocks
from phaseprune.decoder.per_block import (
    cut_to_kept,
    part_of_blocks,
    positional_fields,
    rewritings,
    toggled,
    values_of_blocks,
)
from phaseprune.decoder.skeleton import (
    Difference,
    Skeleton,
    build_empty,
    describe,
    differences,
    pieces_by_block,
)
from phaseprune.errors import UserError

#: Counts of the heads that predict further tokens, which stand behind the last block. The causal
#: models of transformers do not load them, so an export does not hold them.
PREDICTORS = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers")
#: Names under which files state the number of blocks, whether transformers reads them or not.
COUNTS = re.compile(r"(n|num)_(hidden_|decoder_)?(layer|block)s?")


@dataclass(frozen=True)
class Original:
    """A full model's configuration and what it makes.

    Attributes:
        config: of the model class that is loaded (a multimodal checkpoint's may be its text part).
        blocks_path: where the blocks are.
        skeleton: what the configuration makes.
    """

    config: Any
    blocks_path: str
    skeleton: Skeleton

    @property
    def blocks(self) -> int:
        """How many blocks the full model has."""
        return len(self.skeleton.blocks)

    @cached_property
    def part(self) -> str | None:
        """The nested configuration that the blocks belong to; None where it is not nested."""
        return part_of_blocks(self.config)

    @cached_property
    def values(self) -> dict[str, Any]:
        """The values of the configuration (or of the part) that the blocks belong to."""
        return values_of_blocks(self.config)

    @cached_property
    def said_again(self) -> list[str]:
        """Names that state the number of blocks once more, and that transformers does not read."""
        config = getattr(self.config, self.part) if self.part else self.config
        try:
            read = type(config)().to_dict()
        except Exception:  # noqa: BLE001 - a class without defaults: nothing is known of it
            return []
        return [
            name
            for name, value in self.values.items()
            if value == self.blocks and COUNTS.fullmatch(name) and name not in read
        ]

    @cached_property
    def positional(self) -> list[str]:
        """The fields that count blocks."""
        counted = _count_field(self)

        def changes_blocks(values: dict[str, Any]) -> bool:
            try:
                return not self.make(values)[1].is_arranged_like(self.skeleton)
            except Exception:  # noqa: BLE001 - transformers refuses the value, each time otherwise
                return False

        others = {name: v for name, v in self.values.items() if name != counted}
        # The number of blocks must not change with the values that are tried.
        whole = {counted: self.values[counted]} if counted in self.values else {}
        return positional_fields(others, self.blocks, lambda v: changes_blocks(v | whole))

    def make(self, values: dict[str, Any]) -> tuple[Any, Skeleton]:
        """A configuration with other values for the blocks' part, and what it makes."""
        whole = self.config.to_dict()
        whole.pop("quantization_config", None)  # a GGUF's: what is written is de-quantised
        whole = whole | {self.part: values} if self.part else values
        whole = {name: v for name, v in whole.items() if name != "quantization_config"}
        config = type(self.config).from_dict(whole)
        return config, describe(build_empty(config), self.blocks_path)


@dataclass(frozen=True)
class Pruned:
    """A configuration of the kept blocks alone, and what it takes of the weights outside of them.

    ``per_block`` names the weights outside the blocks that hold a piece for each block, and the
    dimension that the pieces lie along.
    """

    config: Any
    per_block: dict[str, int]


def read_original(config, blocks_path: str | None = None) -> Original:
    """Build the full model without its weights, and describe it.

    Args:
        config: its configuration.
        blocks_path: where its blocks are, where that is known already.
    """
    model = build_empty(config)
    return original_of(config, model, blocks_path or find_blocks(model, count_blocks(config)))


def original_of(config, model, blocks_path: str) -> Original:
    """Describe a full model that was built without weights.

    Args:
        config: what it was built from. Where only the text part of a nested one is built and can be
            loaded alone, that part is what is pruned.
        model: from ``build_empty``.
        blocks_path: where its blocks are.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    alone = type(model.config) in MODEL_FOR_CAUSAL_LM_MAPPING
    own = model.config if alone else config
    return Original(own, blocks_path, describe(model, blocks_path))


def pruned_config(config, kept: Sequence[int], blocks_path: str | None = None):
    """A copy of a transformers configuration for the kept blocks alone.

    Args:
        config: the full model's configuration.
        kept: original indices of the kept blocks, in order.
        blocks_path: where its blocks are, where that is known already.

    Raises:
        UserError: no configuration makes these blocks; names the field, and what can be removed.
    """
    return prune(read_original(config, blocks_path), kept).config


def prune(original: Original, kept: Sequence[int]) -> Pruned:
    """The configuration of the kept blocks, and what it takes of the weights outside of them.

    Raises:
        UserError: no configuration makes these blocks; names the field, and what can be removed.
    """
    found, difference = try_pruning(original, kept)
    if found is None:
        raise UserError(_refusal(original, difference))
    return found


def export_limits(original: Original) -> tuple[bool, str | None]:
    """Whether anything can be removed, and in words what cannot; None where all can.

    Tried out are the blocks at both ends of each run of like blocks (of 16 runs at most), each
    alone, and every other block; all blocks only where one of these cannot be removed.
    """
    blocks = original.blocks
    if blocks == 1:
        return False, "its only block cannot be removed"
    pattern = original.skeleton.pattern
    changes = [i for i in range(1, blocks) if pattern[i] != pattern[i - 1]]
    edges = sorted({0, blocks - 1, *changes, *(i - 1 for i in changes)})
    edges = edges[:: max(1, len(edges) // 16)]
    every_other = try_pruning(original, range(0, blocks, 2))[0] is not None
    if every_other and removable_blocks(original, edges) == edges:
        return True, None
    alone, words = what_can_be_removed(original)
    if len(alone) == blocks:
        words = "any single block can be removed, but not every combination of blocks"
    return bool(alone), f"{words}{_counting_fields(original)}"


def try_pruning(original: Original, kept: Sequence[int]) -> tuple[Pruned | None, Difference | None]:
    """The configuration of the kept blocks, or None and what would differ."""
    kept = list(kept)
    values = cut_to_kept(original.values, original.blocks, kept)
    values |= dict.fromkeys((_count_field(original), *original.said_again), len(kept))
    predictors = {name: values[name] for name in PREDICTORS if values.get(name)}
    values |= dict.fromkeys(predictors, 0)
    config, found = _trial(original, values, kept)
    if config is None and predictors:  # a family may insist on them
        values |= predictors
        config, found = _trial(original, values, kept)
    if not found:
        return config, None
    for change in _changes(original, values, kept, found[0]):
        config, left = _trial(original, values | change, kept)
        if not left:
            return config, None
        positions = {difference.position for difference in left}
        for toggle in toggled(values | change, original.positional, positions - {None}):
            config, left = _trial(original, values | change | toggle, kept)
            if not left:
                return config, None
    return None, found[0]


def removable_blocks(original: Original, blocks: Sequence[int]) -> list[int]:
    """Which of some blocks could be removed alone."""
    return [
        block
        for block in blocks
        if try_pruning(original, [b for b in range(original.blocks) if b != block])[0] is not None
    ]


def _trial(
    original: Original, values: dict[str, Any], kept: Sequence[int]
) -> tuple[Pruned | None, list[Difference]]:
    try:
        config, skeleton = original.make(values)
    except Exception as error:  # noqa: BLE001 - each family refuses bad values in its own way
        return None, [Difference(" ".join(str(error).split())[:200])]
    per_block, found = pieces_by_block(original.skeleton, skeleton, kept)
    return Pruned(config, per_block), differences(original.skeleton, skeleton, kept) + found


def _changes(
    original: Original, values: dict[str, Any], kept: Sequence[int], difference: Difference
):
    """Changes that may make the right blocks."""
    if type(difference.old) is type(difference.new) is float and difference.new:
        # A factor that contains the number of blocks, such as 1.4 / sqrt(blocks).
        for name, value in values.items():
            if type(value) is float and value:
                yield {name: value * (difference.old / difference.new)}
    yield from rewritings(original.values, original.positional, original.blocks, kept)


def _count_field(original: Original) -> str:
    config = getattr(original.config, original.part) if original.part else original.config
    return count_field(config, original.blocks)


def _refusal(original: Original, difference: Difference) -> str:
    what = original.config.model_type
    cause = "no configuration makes the kept blocks what they were"
    _, words = what_can_be_removed(original)
    fields = _counting_fields(original)
    return f"export of {what}: {cause}{fields}: {difference.text}; {words}"


def _counting_fields(original: Original) -> str:
    fields = ", ".join(f"{name} = {original.values[name]!r}" for name in original.positional)
    return (
        f", as blocks are counted by position ({fields})"
        if fields
        else (", as what a block is depends on its position")
    )


def what_can_be_removed(original: Original) -> tuple[list[int], str]:
    """The blocks that can be removed alone, and in words."""
    blocks = original.blocks
    alone = removable_blocks(original, range(blocks)) if blocks > 1 else []
    words = f"of single blocks {', '.join(map(str, alone)) or 'none'} can be removed"
    if len(alone) > 1:
        return alone, words
    for run in range(2, blocks // 2 + 1):
        first = try_pruning(original, range(run, blocks))[0]
        if first is not None and try_pruning(original, [0, *range(run + 1, blocks)])[0] is not None:
            return alone, f"{words}, and runs of {run} neighbours"
    return alone, words
