"""Which stored tensor is which weight of a model, told by names and shapes.

A checkpoint's names need not be the model's: the base model's prefix may lack, and loading may
rename or merge tensors. In an export the names on disk stay as they are but for the block's number,
so that every tool that reads the original reads the export. A vision tower has a list of layers
too: which list is meant is decided by the whole path, never by its last part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from phaseprune.decoder.checkpoint import Checkpoint
from phaseprune.errors import UserError


@dataclass(frozen=True)
class Names:
    """The model's weights held against the checkpoint's.

    Attributes:
        checked: what was compared: ``names and shapes``, ``names``, ``modules`` (quantised weights
            have other names and shapes), ``blocks`` (GGUF has other names), or ``nothing``.
        unsure: weights that no stored tensor has the name of, but loading converts names or tensors
            for this family, so that only loading can tell.
        unused: stored tensors that the model has no weight for.
        problem: a weight that is missing or of another shape, in a sentence; None where all fit.
    """

    checked: str
    unsure: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    problem: str | None = None


def compare_names(
    model: nn.Module, blocks_path: str, checkpoint: Checkpoint, quantised: bool
) -> Names:
    """Hold the weights of a model on the meta device against those of its checkpoint.

    Args:
        model: the model.
        blocks_path: where its blocks are.
        checkpoint: what its files hold.
        quantised: whether weights are stored under other names and shapes, module by module.
    """
    if checkpoint.tensors is None:
        return Names("nothing")
    if checkpoint.file_type:  # other names; a block without any tensor is missing all the same
        held = {block_of(name, ["blk"]) for name in checkpoint.tensors}
        for block in range(len(model.get_submodule(blocks_path))):
            if block not in held:
                return Names("blocks", problem=f"the file has no tensor of block {block}")
        return Names("blocks")
    expected = _expected(model)
    renamings, converts = changes_on_loading(model)
    called = {
        name: possible_names(name, model.base_model_prefix, renamings)
        for name in checkpoint.tensors
    }
    if quantised:
        return _compare_modules(model, expected, called, converts)
    stored = _own_names(called, expected)
    missing = _missing(model, expected, stored)
    if converts:
        # A weight whose like in another block has its plain name is not one that is converted.
        plain = {_without_numbers(name) for name in stored}
        unsure = [name for name in missing if _without_numbers(name) not in plain]
        missing = [name for name in missing if name not in set(unsure)]
        unused: list[str] = []
    else:
        unsure, unused = [], _unused(model, checkpoint, set(stored.values()))
    checked = "names and shapes" if checkpoint.has_shapes else "names"
    problem = _missing_words(missing)
    if problem is None and checkpoint.has_shapes and not converts:
        problem = _other_shape(expected, stored, checkpoint)
    return Names(checked, tuple(unsure), tuple(unused), problem)


def _expected(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights (and stored buffers) that loading demands."""
    ignored = [re.compile(p) for p in getattr(model, "_keys_to_ignore_on_load_missing", None) or ()]
    return {
        name: tuple(tensor.shape)
        for name, tensor in model.state_dict().items()
        if not any(pattern.search(name) for pattern in ignored)
    }


def possible_names(name: str, base: str, renamings: Sequence[Any]) -> list[str]:
    """What loading may call a stored tensor: the base model's prefix may be there or lack.

    Args:
        name: the stored one.
        base: the model's ``base_model_prefix``.
        renamings: from ``changes_on_loading``.
    """
    renamed = name
    for renaming in renamings:
        renamed = renaming.rename_source_key(renamed)[0]
    names = [name] if renamed == name else [name, renamed]
    return names + [
        other for each in names for other in (f"{base}.{each}", each.removeprefix(f"{base}."))
    ]


def _own_names(called: Mapping[str, list[str]], expected: Mapping[str, Any]) -> dict[str, str]:
    """The model's name -> the stored one."""
    found: dict[str, str] = {}
    for stored, names in called.items():
        own = next((name for name in names if name in expected), None)
        if own is not None:
            found.setdefault(own, stored)
    return found


def _missing(model: nn.Module, expected: Iterable[str], stored: Mapping[str, str]) -> list[str]:
    """Weights that neither they nor what they are tied to is stored of."""
    of_parameter: dict[int, list[str]] = {}
    tied: dict[str, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        tied[name] = of_parameter.setdefault(id(parameter), [])
        tied[name].append(name)
    return [
        name
        for name in expected
        if name not in stored and not any(other in stored for other in tied.get(name, ()))
    ]


def _compare_modules(
    model: nn.Module, expected: Iterable[str], called: Mapping[str, list[str]], converts: bool
) -> Names:
    """Quantised: a weight is there if its module has any tensor, whatever its name and shape."""
    held: dict[str, str] = {}
    for stored, names in called.items():
        for name in names:
            held[name] = held[_module(name)] = stored
    found = {
        name: held.get(name) or held[_module(name)]
        for name in expected
        if name in held or _module(name) in held
    }
    missing = _missing(model, expected, found)
    if missing and converts:
        return Names("modules", unsure=tuple(missing))
    return Names("modules", problem=_missing_words(missing))


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _missing_words(missing: list[str]) -> str | None:
    if not missing:
        return None
    return (
        f"the checkpoint lacks {len(missing)} of the model's weights, the first {missing[0]}; they "
        "would be random, so give a complete checkpoint"
    )


def _other_shape(
    expected: Mapping[str, tuple[int, ...]], stored: Mapping[str, str], checkpoint: Checkpoint
) -> str | None:
    for name, shape in expected.items():
        if name in stored and checkpoint.tensors[stored[name]].shape != shape:
            return (
                f"{stored[name]} is {list(checkpoint.tensors[stored[name]].shape)} in the "
                f"checkpoint and {list(shape)} by config.json; they are not of one model"
            )
    return None


def _unused(model: nn.Module, checkpoint: Checkpoint, used: set[str]) -> list[str]:
    ignored = [
        *(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()),
        r"rotary_emb\.inv_freq",
        r"(^|\.)position_ids$",
    ]
    return [
        name
        for name in checkpoint.tensors
        if name not in used and not any(re.search(pattern, name) for pattern in ignored)
    ]


def changes_on_loading(model: nn.Module) -> tuple[list[Any], bool]:
    """The renamings of this family's stored names, and whether loading changes anything at all.

    Besides renaming, loading may merge tensors (a layer's experts into one), which only loading can
    follow.
    """
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightRenaming

        changes = get_model_conversion_mapping(model, add_legacy=False)
        renamings = [change for change in changes if isinstance(change, WeightRenaming)]
        if all(hasattr(renaming, "rename_source_key") for renaming in renamings):
            return renamings, bool(changes)
    except (ImportError, TypeError, AttributeError):  # another release of transformers
        pass
    return [], True


def block_of(name: str, paths: list[str]) -> int | None:
    """The block that a stored tensor belongs to, by the paths that blocks may have."""
    for path in paths:
        number = name.removeprefix(f"{path}.").split(".")[0]
        if name.startswith(f"{path}.") and number.isdigit():
            return int(number)
    return None


def _without_numbers(name: str) -> str:
    return re.sub(r"\d+", "*", name)


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
