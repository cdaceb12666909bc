"""Finding the blocks, the final norm and the head of any decoder, without knowing its family."""

from __future__ import annotations

from collections import deque

from torch import nn

from phaseprune.errors import UserError


def count_blocks(config) -> int:
    """The number of blocks that a configuration states."""
    count = getattr(config.get_text_config(decoder=True), "num_hidden_layers", None)
    if not isinstance(count, int) or count < 1:
        raise UserError(
            f"the configuration of this {config.model_type} model states no num_hidden_layers, so "
            "its blocks cannot be found; only decoders made of a list of blocks are supported"
        )
    return count


def find_blocks(model: nn.Module, count: int) -> str:
    """Path of the shallowest ``ModuleList`` that holds ``count`` modules of one type.

    Raises:
        UserError: there is none; names the lists that were found.
    """
    lists = []
    queue = deque([("", model)])
    while queue:
        path, module = queue.popleft()
        if isinstance(module, nn.ModuleList):
            kinds = sorted({type(child).__name__ for child in module})
            if len(module) == count and len(kinds) == 1:
                return path
            lists.append(f"{path} ({len(module)} x {'/'.join(kinds)})")
        queue.extend(
            (f"{path}.{name}" if path else name, child) for name, child in module.named_children()
        )
    raise UserError(
        f"{type(model).__name__}: no list of {count} blocks of one type was found "
        f"(lists: {', '.join(lists[:5]) or 'none'}); this architecture is not supported"
    )


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
