"""Which stored tensor belongs to which block, and what it is called after a removal.

A checkpoint's names need not be the model's: the base model's prefix may lack, and loading may
rename or merge tensors. The names on disk stay as they are but for the block's number, so that
every tool that reads the original reads the export. A vision tower has a list of layers too: which
list is meant is decided by the whole path, never by its last part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from phaseprune.decoder.names import block_of, changes_on_loading, possible_names
from phaseprune.errors import UserError


@dataclass(frozen=True)
class Destination:
    """Where a stored tensor goes.

    Attributes:
        name: in the exported checkpoint.
        block_dimension: along which it holds a piece for each block, of which only the kept ones'
            stay; None for most.
    """

    name: str
    block_dimension: int | None = None


def destinations(
    model: nn.Module,
    blocks_path: str,
    stored: Iterable[str],
    kept: Sequence[int],
    per_block: Mapping[str, int],
    whole_checkpoint: bool,
    own_names: bool,
) -> dict[str, Destination]:
    """The names of the tensors that stay, by their stored names.

    Dropped are the removed blocks, blocks behind the last one (heads that predict further tokens,
    which the model does not load), and, unless ``whole_checkpoint``, other parts that it lacks.

    Args:
        model: the loaded full model.
        blocks_path: where its blocks are.
        stored: the checkpoint's names.
        kept: original indices of the kept blocks.
        per_block: names of weights outside the blocks -> the dimension with a piece a block.
        whole_checkpoint: keep what the model does not load, as another class's vision tower.
        own_names: call tensors as the model calls them, where the checkpoint is of another class.

    Raises:
        UserError: a kept block has no tensor.
    """
    renamings, _ = changes_on_loading(model)
    beginnings = {_beginning(name) for name in model.state_dict()}
    result, found = {}, set()
    for name in stored:
        called = possible_names(name, model.base_model_prefix, renamings)
        place = next((c for c in called if block_of(c, [blocks_path]) is not None), None)
        if place is None:
            ours = next((c for c in called if _beginning(c) in beginnings), None)
            if ours or whole_checkpoint:
                dimension = next((per_block[c] for c in called if c in per_block), None)
                result[name] = Destination(ours if own_names and ours else name, dimension)
            continue
        block = block_of(place, [blocks_path])
        found.add(block)
        if block in kept:
            shown = place if own_names else name
            new = _renumbered(shown, blocks_path, block, kept.index(block))
            result[name] = Destination(new)
    if not set(kept) <= found:
        raise UserError(
            f"the weights of block {min(set(kept) - found)} were not found under a name like "
            f"{blocks_path}.0 in the checkpoint, so it cannot be exported"
        )
    return result


def _beginning(name: str) -> str:
    return ".".join(name.split(".")[:2])


def _renumbered(name: str, blocks_path: str, block: int, number: int) -> str:
    """The stored name with another number in the place of the block's."""
    parts = name.split(".")
    places = [i for i, part in enumerate(parts) if part == str(block)]
    last = blocks_path.rpartition(".")[2]
    place = next((i for i in places if i and parts[i - 1] == last), places[0])
    return ".".join([*parts[:place], str(number), *parts[place + 1 :]])
