"""A model without memory for its weights, and what tells one of its blocks from another.

Built on PyTorch's meta device, which takes some hundredths of a second whatever the model's size.
It shows whether a changed configuration still gives every kept block the modules, shapes and
settings that it had, without knowing the family.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

#: A module's name in its block -> its class, the shapes of its tensors, and its plain attributes.
Block = dict[str, tuple[str, dict[str, tuple[int, ...]], dict[str, Any]]]


@dataclass(frozen=True)
class Skeleton:
    """What a configuration makes.

    Attributes:
        blocks: one description a block.
        outside: shapes of the weights that belong to no block, by name.
    """

    blocks: list[Block]
    outside: dict[str, tuple[int, ...]]

    @cached_property
    def kinds(self) -> list[Block]:
        """The blocks without what only says their own number."""
        numbers = _own_numbers(self.blocks)
        return [
            {
                name: (kind, shapes, {k: v for k, v in rest.items() if (name, k) not in numbers})
                for name, (kind, shapes, rest) in block.items()
            }
            for block in self.blocks
        ]

    @cached_property
    def pattern(self) -> list[int]:
        """Which blocks are alike: for each block the first that is like it."""
        return [self.kinds.index(kind) for kind in self.kinds]

    def is_arranged_like(self, other: Skeleton) -> bool:
        """Whether the same blocks are alike, and none has become what another one was."""
        if self.pattern != other.pattern:
            return False
        moved = (new for new, old in zip(self.kinds, other.kinds, strict=True) if new != old)
        return not any(kind in other.kinds for kind in moved)


@dataclass(frozen=True)
class Difference:
    """A block of a pruned model that is not the block that it should be.

    ``old`` and ``new`` are the values of a setting, None where it is no setting that differs.
    """

    text: str
    old: Any = None
    new: Any = None
    position: int | None = None


def build_empty(config, trust_remote_code: bool = False) -> nn.Module:
    """The model with its weights' names and shapes and no memory for them."""
    from transformers import AutoModelForCausalLM

    # A class of the checkpoint's own code is only here if the user let that code run.
    trusted = trust_remote_code or type(config).__module__.startswith("transformers_modules")
    with torch.device("meta"), _uninitialised():
        return AutoModelForCausalLM.from_config(copy.deepcopy(config), trust_remote_code=trusted)


@contextmanager
def _uninitialised() -> Iterator[None]:
    """Leave weights as they are made: their values are of no use, and cost half of the time."""
    names = [name for name in vars(nn.init) if name.endswith("_") and not name.startswith("_")]
    kept = {name: getattr(nn.init, name) for name in names}
    try:
        for name in names:
            setattr(nn.init, name, lambda tensor, *_, **__: tensor)
        yield
    finally:
        for name, function in kept.items():
            setattr(nn.init, name, function)


def describe(model: nn.Module, blocks_path: str) -> Skeleton:
    """Describe a model's blocks, and the weights outside of them."""
    prefix = blocks_path + "."
    outside = {
        name: tuple(tensor.shape)
        for name, tensor in model.state_dict().items()
        if not name.startswith(prefix)
    }
    return Skeleton([_describe_block(b) for b in model.get_submodule(blocks_path)], outside)


def differences(full: Skeleton, pruned: Skeleton, kept: Sequence[int]) -> list[Difference]:
    """Where the pruned model's blocks are not the blocks that they should be.

    A number that counts blocks may follow the removal: an index becomes the new index, the number
    of blocks the new number, and so on.

    Args:
        full: of all blocks.
        pruned: of the kept ones.
        kept: their original indices, in order.
    """
    if len(pruned.blocks) != len(kept):
        text = f"{len(pruned.blocks)} blocks would be built, not {len(kept)}"
        return [Difference(text)] * 10**6  # worse than anything else
    found = []
    for position, block in enumerate(kept):
        old, new = full.blocks[block], pruned.blocks[position]
        for name in dict.fromkeys((*old, *new)):  # in one order, whatever the hash seed
            if name not in old or name not in new:
                verb = "lose" if name in old else "gain"
                text = f"block {block} would {verb} a module {name}"
                found.append(Difference(text, position=position))
            elif old[name][:2] != new[name][:2]:
                text = f"the module {name or old[name][0]} of block {block} would be another one"
                found.append(Difference(text, position=position))
            else:
                before, after = old[name][2], new[name][2]
                for setting in before:
                    if not _follows(before[setting], after.get(setting), len(full.blocks), kept):
                        where = f"{name}.{setting}".lstrip(".")
                        text = (
                            f"{where} of block {block} would be {after.get(setting)!r} and not "
                            f"{before[setting]!r}"
                        )
                        found.append(
                            Difference(text, before[setting], after.get(setting), position)
                        )
    return found


def pieces_by_block(
    full: Skeleton, pruned: Skeleton, kept: Sequence[int]
) -> tuple[dict[str, int], list[Difference]]:
    """Weights outside the blocks that hold a piece for each block, as per-block embeddings do.

    Returns:
        The dimension that the pieces lie along by the weight's name, and what else differs.
    """
    dimensions, found = {}, []
    for name in full.outside.keys() | pruned.outside.keys():
        old, new = full.outside.get(name), pruned.outside.get(name)
        if old == new:
            continue
        changed = [i for i, size in enumerate(old or ()) if new is None or size != new[i]]
        pieces = len(changed) == 1 and new is not None and len(old) == len(new)
        size, rest = divmod(old[changed[0]], len(full.blocks)) if pieces else (0, 1)
        if rest == 0 and new[changed[0]] == size * len(kept):
            dimensions[name] = changed[0]
        else:
            text = f"the weight {name}, which is outside of the blocks, would be {new or 'gone'}"
            found.append(Difference(text))
    return dimensions, found


def _describe_block(block: nn.Module) -> Block:
    found: Block = {}
    for name, module in block.named_modules():
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        shapes = {key: tuple(tensor.shape) for key, tensor in own}
        plain = {k: v for k, v in vars(module).items() if not k.startswith("_") and _is_plain(v)}
        found[name] = type(module).__name__, shapes, plain
    return found


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str | torch.dtype)


def _follows(old: Any, new: Any, blocks: int, kept: Sequence[int]) -> bool:
    if old == new:
        return True
    if type(old) is type(new) is float:
        return math.isclose(old, new, rel_tol=1e-12)
    if isinstance(old, list | tuple):
        if len(old) == blocks and list(new) == [old[block] for block in kept]:
            return True
        same = isinstance(new, list | tuple) and len(old) == len(new)
        return same and all(_follows(*pair, blocks, kept) for pair in zip(old, new, strict=True))
    counts = type(old) is type(new) is int and 0 <= old <= blocks
    return counts and new == sum(block < old for block in kept)


def _own_numbers(blocks: list[Block]) -> set[tuple[str, str]]:
    """Settings that hold the block's own index, wherever a block has them."""
    held: dict[tuple[str, str], bool] = {}
    for number, block in enumerate(blocks):
        for name, (_, _, settings) in block.items():
            for key, value in settings.items():
                held[name, key] = held.get((name, key), True) and value == number
    return {key for key, own in held.items() if own}
