"""Finding the blocks, the final norm and the head of any decoder, without knowing its family."""

from __future__ import annotations

from inspect import signature

from torch import nn

from phaseprune.errors import UserError, near_matches

#: What to do where the blocks are not found.
NAME_THEM = "if it has a list of blocks, name it with --blocks PATH, as model.layers"


#: Fields that state the number of a decoder's blocks, the likeliest first. Where an encoder's count
#: is stated too (BART), ``num_hidden_layers`` is that one's; LongCat-Flash counts attentions there.
COUNT_FIELDS = ("decoder_layers", "num_decoder_layers", "num_hidden_layers", "num_layers")
#: So many are built in no time, and what does not fit the file is then said more exactly.
FEW_BLOCKS = 1000


def count_blocks(config) -> int:
    """The number of blocks that a configuration states, likeliest.

    Raises:
        UserError: it states none.
    """
    return _stated_counts(config)[0]


def _stated_counts(config) -> list[int]:
    text = config.get_text_config(decoder=True)
    stated = [getattr(text, field, None) for field in COUNT_FIELDS]
    counts = [count for count in stated if type(count) is int and count >= 1]
    if not counts:
        raise UserError(
            f"the configuration of this {config.model_type} model states no num_hidden_layers, so "
            f"its blocks cannot be found; {NAME_THEM}"
        )
    return list(dict.fromkeys(counts))


def refuse_many_blocks(name: str, config, longest: int | None) -> None:
    """Refuse a count of blocks that no file has, before so many are built.

    Args:
        name: what the user called the model.
        config: its configuration.
        longest: how many members the longest list in the names of its tensors has; None where the
            names are not known.

    Raises:
        UserError: says how many are stated and how many there are.
    """
    count = count_blocks(config)
    if count <= FEW_BLOCKS or (longest is not None and count <= longest):
        return
    held = "no model has so many" if longest is None else f"the weights' files hold {longest}"
    field = count_field(config.get_text_config(decoder=True), count)
    raise UserError(
        f"{name}: config.json states {count:,} blocks ({field}), and {held}; mend config.json, or "
        "fetch the files again"
    )


def count_field(config, blocks: int) -> str:
    """What the file of a (text) configuration calls the field that states this number of blocks."""
    stating = [field for field in COUNT_FIELDS if getattr(config, field, None) == blocks]
    field = stating[0] if stating else "num_hidden_layers"
    return config.attribute_map.get(field, field)


def locate_blocks(model: nn.Module, config, path: str | None = None) -> str:
    """Path of the blocks: as the user gave it, else found by the count that the config states.

    Args:
        model: the model, be it on the meta device.
        config: its configuration.
        path: module path of a list of blocks, as ``model.layers``.

    Raises:
        UserError: there is no such list, or none was found.
    """
    if path is None:
        return find_blocks(model, *_stated_counts(config))
    lists = {
        name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)
    }
    if path not in lists or not len(lists[path]):
        raise UserError(
            f"--blocks={path!r}: {type(model).__name__} has no list of modules of that name."
            + (near_matches(path, lists) or f" It has {', '.join(list(lists)[:5]) or 'none'}")
        )
    return path


def find_blocks(model: nn.Module, *counts: int) -> str:
    """Path of the shallowest ``ModuleList`` that holds a given number of modules.

    It is looked for in what transformers calls the decoder first, so that the vision tower of a
    multimodal model is not taken for it. Of several lists side by side (attentions and MLPs, say),
    that of most parameters is taken; ``verify`` tells whether it is the whole of the blocks.

    Args:
        model: the model.
        counts: how many modules there may be; the first number that some list has counts.

    Raises:
        UserError: there is none; names the lists that were found.
    """
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    inside = [(name, module) for name, module in model.named_modules() if module is decoder]
    levels = [_lists(*start) for start in (*inside, ("", model))]
    for count in counts:
        for lists in levels:
            fitting = [found for found in lists if len(found[1]) == count]
            beside = [f for f in fitting if f[0].count(".") == fitting[0][0].count(".")]
            if beside:
                return max(beside, key=lambda found: _parameters(found[1]))[0]
    seen = dict.fromkeys(
        f"{path} ({len(m)} x {_kinds(m)})" for lists in levels for path, m in lists
    )
    raise UserError(
        f"{type(model).__name__}: no list of {' or '.join(map(str, counts))} blocks was found "
        f"(lists: {', '.join(list(seen)[:5]) or 'none'}); {NAME_THEM}"
    )


def _lists(path: str, module: nn.Module) -> list[tuple[str, nn.ModuleList]]:
    """The lists of modules in a module, the shallowest first."""
    found = [
        (f"{path}.{name}" if path and name else path or name, child)
        for name, child in module.named_modules()
        if isinstance(child, nn.ModuleList)
    ]
    return sorted(found, key=lambda each: each[0].count("."))


def _kinds(modules: nn.ModuleList) -> str:
    return "/".join(sorted({type(child).__name__ for child in modules}))


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def find_input_name(blocks: nn.ModuleList) -> str:
    """What the blocks call the hidden state that they are given: their first parameter."""
    return next(iter(signature(blocks[0].forward).parameters))


def find_final_norm(model: nn.Module, blocks_path: str) -> str | None:
    """Path of the norm that stands beside the blocks, after them; None where there is none."""
    parent_path, _, name = blocks_path.rpartition(".")
    children = list(model.get_submodule(parent_path).named_children())
    behind = children[[child for child, _ in children].index(name) + 1 :]
    for child, module in behind:
        if "norm" in type(module).__name__.lower():
            return f"{parent_path}.{child}" if parent_path else child
    return None


def find_head(model: nn.Module) -> nn.Module:
    """The output head.

    Raises:
        UserError: the model has none.
    """
    head = model.get_output_embeddings()
    if head is None:
        raise UserError(
            f"{type(model).__name__} has no output head, so nothing can be read out; load a "
            "checkpoint of a causal language model"
        )
    return head
