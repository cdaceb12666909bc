"""Building a model whose blocks stay on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from phaseprune.decoder.budget import LEAST_TOKENS, in_words, working_bytes
from phaseprune.decoder.checkpoint import loaded_files
from phaseprune.decoder.names import block_of
from phaseprune.decoder.source import Source
from phaseprune.decoder.streaming import BlockStream, load_into
from phaseprune.decoder.weight_reader import WeightReader
from phaseprune.errors import UserError


def streaming_problem(source: Source, config) -> str | None:
    """Why a model's blocks cannot be read one by one; None where they can."""
    if source.gguf_file:
        return "a .gguf file is de-quantised as a whole, so it cannot be read block by block"
    text = config.get_text_config(decoder=True)
    if any(getattr(c, "quantization_config", None) is not None for c in (config, text)):
        return "a quantised checkpoint cannot be read block by block"
    try:
        from transformers.core_model_loading import rename_source_key  # noqa: F401
    except ImportError:
        return "the installed transformers cannot load single blocks; update it"
    return None


def load_streamed(
    source: Source,
    device: str,
    dtype: torch.dtype | None,
    trust_remote_code: bool,
    find: Callable[[nn.Module], str],
    max_memory: int | None,
) -> tuple[nn.Module, dict[str, Any], BlockStream]:
    """Load what stands outside the blocks; the blocks are read when they run.

    Args:
        source: the files.
        device: where weights go.
        dtype: that they are loaded in; None for the checkpoint's own.
        trust_remote_code: run the checkpoint's own code.
        find: gives the path of a model's blocks.
        max_memory: what a run may take.

    Returns:
        The model, transformers' report on loading it, and its blocks.

    Raises:
        UserError: blocks that share weights, tensors that cannot be read, or a budget in which not
            even this has room.
    """
    from transformers import AutoModelForCausalLM

    streams: list[BlockStream] = []
    reader = WeightReader(loaded_files(source))

    def outside_alone(model: nn.Module, state, files, loading, *args, **kwargs):
        path = find(model)
        by_block, outside = _assign(model, path, reader, loading)
        blocks = model.get_submodule(path)
        prefixes = [f"{path}.{number}." for number in range(len(blocks))]
        _refuse_sharing(source, model, prefixes)
        stream = BlockStream(
            source.name, model, blocks, prefixes, reader, by_block,
            replace(loading, device_map={"": device}),
        )  # fmt: skip
        _check_budget(stream, max_memory)
        streams.append(stream)
        report = load_into(model, {name: reader.lazy(name) for name in outside}, loading)
        inside = [name for name in report.missing_keys if name.startswith(tuple(prefixes))]
        report.missing_keys.difference_update(inside)
        for name in inside:  # else they would be made and filled at random
            model.get_parameter_or_buffer(name)._is_hf_initialized = True
        return report, None

    with _loading_replaced(outside_alone):
        model, report = AutoModelForCausalLM.from_pretrained(
            source.directory,
            dtype=dtype or "auto",
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            use_safetensors=True,
        )
    _move(model, device)
    inside = tuple(streams[0].prefixes)
    left = [n for n, t in _tensors(model) if t.is_meta and not n.startswith(inside)]
    if left:
        raise UserError(f"{source.name}: {left[0]} was not loaded; use --no-stream")
    return model.eval().requires_grad_(False), report, streams[0]


@contextmanager
def _loading_replaced(stand_in: Callable) -> Iterator[None]:
    """Have ``from_pretrained`` build a model and settle how to load it, and load by ``stand_in``.

    So that dtypes, names and buffers are settled as they are for any model.
    """
    from transformers import PreTrainedModel

    original = PreTrainedModel.__dict__["_load_pretrained_model"]
    PreTrainedModel._load_pretrained_model = staticmethod(stand_in)
    try:
        yield
    finally:
        PreTrainedModel._load_pretrained_model = original


def _assign(
    model: nn.Module, path: str, reader: WeightReader, loading: Any
) -> tuple[list[list[str]], list[str]]:
    """The stored tensors of each block, and those of none, by the names that loading gives them."""
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        rename_source_key,
    )

    mapping = loading.weight_mapping or []
    renamings = [change for change in mapping if isinstance(change, WeightRenaming)]
    converters = [change for change in mapping if isinstance(change, WeightConverter)]
    own = model.state_dict()
    base = model.base_model_prefix
    by_block: list[list[str]] = [[] for _ in model.get_submodule(path)]
    outside = []
    for name in reader.places:
        called = rename_source_key(name, renamings, converters, base, own)[0]
        if called not in own and name in own:
            called = name
        block = block_of(called, [path])
        if block is None or block >= len(by_block):
            outside.append(name)
        else:
            by_block[block].append(name)
    return by_block, outside


def _refuse_sharing(source: Source, model: nn.Module, prefixes: list[str]) -> None:
    owners: dict[int, str] = {}
    tied: Mapping[str, str] = getattr(model, "all_tied_weights_keys", None) or {}
    pairs = [*tied.items()]
    for name, parameter in model.named_parameters(remove_duplicate=False):
        pairs.append((name, owners.setdefault(id(parameter), name)))
    for one, other in pairs:
        places = [next((p for p in prefixes if n.startswith(p)), None) for n in (one, other)]
        if places[0] != places[1]:
            raise UserError(
                f"{source.name}: {one} and {other} are one weight, and not of one block, so blocks "
                "cannot be read one by one; use --no-stream"
            )


def _check_budget(stream: BlockStream, max_memory: int | None) -> None:
    if max_memory is None:
        return
    itemsize = next(stream.blocks[0].parameters()).dtype.itemsize
    least = stream.held_bytes + working_bytes(stream.blocks, LEAST_TOKENS, itemsize)
    if least > max_memory:
        raise UserError(
            f"{stream.name}: --max-memory {in_words(max_memory)} is too little: what stands "
            f"outside the blocks, two blocks, and what they work with take {in_words(least)}; give "
            "at least that much, and more for many questions"
        )


def _move(model: nn.Module, device: str) -> None:
    """Move what is not on the meta device; parameters stay the objects that others are tied to."""
    for parameter in model.parameters():
        if not parameter.is_meta:
            parameter.data = parameter.data.to(device)
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and not buffer.is_meta:
                module._buffers[name] = buffer.to(device)


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()
