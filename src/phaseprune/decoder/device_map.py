"""Models whose parts lie on several devices, in host memory or on disk: accelerate's device map.

transformers loads them; accelerate's hooks, which stand in the modules' forwards, move what a
module is given to where it runs, and fetch offloaded weights for as long as it runs.
"""

from __future__ import annotations

import functools
import logging
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from phaseprune.decoder.budget import RESIDENT_SHARE
from phaseprune.decoder.source import Source
from phaseprune.errors import UserError

#: What ``--device`` says for a map that accelerate makes.
MAP = "map"
#: A map as the user asked for it: ``map``, or the device (or ``disk``) by a module's path.
DeviceMap = str | Mapping[str, Any]


def require_accelerate() -> None:
    """Refuse where what spreads models is not installed.

    Raises:
        UserError: says what to install.
    """
    if find_spec("accelerate") is None:
        raise UserError(
            f"--device {MAP} needs accelerate, which spreads a model over devices; "
            "pip install 'phaseprune[map]'"
        )


def main_device(device_map: DeviceMap, usual: str) -> str:
    """The device that most runs on: the first accelerator of a map; ``usual`` where we are free."""
    if isinstance(device_map, str):
        return usual
    named = [str(place) for place in device_map.values() if str(place) not in ("cpu", "disk")]
    number = named and named[0].isdigit()
    return f"{usual.partition(':')[0]}:{named[0]}" if number else (named or ["cpu"])[0]


def refuse_unmappable(source: Source, config, stream: bool | None) -> None:
    """Refuse what cannot be spread, before weights are read.

    Raises:
        UserError: GGUF, a quantised checkpoint, or blocks that are to be streamed.
    """
    text = config.get_text_config(decoder=True)
    quantised = any(getattr(c, "quantization_config", None) is not None for c in (config, text))
    if stream:
        why = "--stream reads blocks from disk itself; use one of the two"
    elif source.gguf_file:
        why = "a .gguf file is de-quantised as a whole; give the safetensors, or one --device"
    elif quantised:
        why = "quantised weights are not moved between devices; give one --device"
    else:
        return
    raise UserError(f"{source.name}: --device {MAP} cannot be used here: {why}")


def load_mapped(
    directory: Path,
    device_map: DeviceMap,
    dtype: torch.dtype | None,
    trust_remote_code: bool,
    find: Callable[[nn.Module], str],
    max_memory: int | None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Let transformers load a model and spread it.

    Args:
        directory: of the checkpoint.
        device_map: as asked for.
        dtype: that weights are loaded in; None for the checkpoint's own.
        trust_remote_code: run the checkpoint's own code.
        find: gives the path of a model's blocks.
        max_memory: bytes that a run may take on each accelerator, or in host memory where there is
            none; weights get most of that.

    Returns:
        The model and transformers' report on loading it.
    """
    require_accelerate()
    from transformers import AutoModelForCausalLM

    automatic = isinstance(device_map, str)
    # Weights on disk are read from the checkpoint, but for those that loading changes.
    folder = tempfile.mkdtemp(prefix="phaseprune-offload-")
    told = logging.getLogger("accelerate")
    level = told.level
    told.setLevel(logging.ERROR)  # offloaded weights are what was asked for
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=dtype or "auto",
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            use_safetensors=True,
            device_map="auto" if automatic else dict(device_map),
            max_memory=_room(max_memory) if automatic and max_memory is not None else None,
            offload_folder=folder,
        )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        told.setLevel(level)
    weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
    for block in model.get_submodule(find(model)):
        _fetch_at_once(block)
    return model.eval().requires_grad_(False), report


def _room(max_memory: int) -> dict[int | str, int]:
    """What weights may take by device: most of the budget where the model runs."""
    from accelerate.utils import get_max_memory

    free = {place: int(RESIDENT_SHARE * size) for place, size in get_max_memory().items()}
    limited = [place for place in free if place != "cpu"] or ["cpu"]
    return free | {p: min(free[p], int(RESIDENT_SHARE * max_memory)) for p in limited}


def pruned_map(device_map: DeviceMap, blocks_path: str, kept: Sequence[int]) -> DeviceMap:
    """The map of the model that has the kept blocks alone, each where it was."""
    if isinstance(device_map, str):
        return device_map
    block = re.compile(rf"{re.escape(blocks_path)}\.(\d+)(?=\.|$)")
    pruned = {}
    for path, place in device_map.items():
        found = block.match(path)
        if found is None:
            pruned[path] = place
        elif int(found[1]) in kept:
            number = kept.index(int(found[1]))
            pruned[f"{blocks_path}.{number}{path[found.end() :]}"] = place
    return pruned


def runs_on(module: nn.Module) -> torch.device | None:
    """Where a module's hook has it run; None where it has none."""
    place = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
    return None if place is None else torch.device(place)


def _fetch_at_once(block: nn.Module) -> None:
    """Have a block's offloaded weights fetched before it runs.

    The hooks fetch them module by module, and not at all where a block uses the weights of a module
    without calling it.
    """
    if not any(_is_offloaded(part) for part in block.modules()):
        return
    forward = block.forward

    @functools.wraps(forward)
    def whole(*args, **kwargs):
        with fetched(block):
            return forward(*args, **kwargs)

    block.forward = whole


def _is_offloaded(module: nn.Module) -> bool:
    return getattr(getattr(module, "_hf_hook", None), "offload", False)


@contextmanager
def fetched(module: nn.Module, recurse: bool = True) -> Iterator[None]:
    """Have the offloaded weights of a module where it runs while the context lasts.

    Args:
        module: any of a model.
        recurse: fetch those of the modules in it too.
    """
    with ExitStack() as stack:
        for part in module.modules() if recurse else [module]:
            if _is_offloaded(part):
                stack.enter_context(_fetched(part, part._hf_hook))
        yield


@contextmanager
def _fetched(module: nn.Module, hook: Any) -> Iterator[None]:
    hook.pre_forward(module)
    hook.offload = False
    try:
        yield
    finally:
        hook.offload = True
        hook.post_forward(module, None)


def block_places(model: nn.Module, blocks_path: str) -> list[str]:
    """Where each block's weights lie, as the map says: a device, ``cpu`` or ``disk``."""
    places = getattr(model, "hf_device_map", {"": model.device})

    def place(block: str) -> str:
        above = [path for path in places if f"{block}.".startswith(f"{path}." if path else "")]
        return str(places[max(above, key=len)]) if above else "several devices"

    return [place(f"{blocks_path}.{n}") for n in range(len(model.get_submodule(blocks_path)))]


def distinct_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters, those that are tied once: offloading makes two of them."""
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    return {tied.get(name, name): parameter for name, parameter in model.named_parameters()}


def parameter_count(model: nn.Module) -> int:
    """How many values a model's weights have."""
    return sum(parameter.numel() for parameter in distinct_parameters(model).values())


def held_bytes(model: nn.Module, parts: Sequence[nn.Module], device: torch.device) -> int:
    """Of the weights that a device holds at most: its own and the largest offloaded part."""
    own = sum(p.nbytes for p in distinct_parameters(model).values() if _is_on(p, device))
    return own + max(sum(p.nbytes for p in part.parameters() if p.is_meta) for part in parts)


def _is_on(tensor: torch.Tensor, device: torch.device) -> bool:
    return tensor.device.type == device.type and device.index in (None, tensor.device.index)
