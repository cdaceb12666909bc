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
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from phaseprune.decoder.budget import RESIDENT_SHARE
from phaseprune.decoder.discover import find_head
from phaseprune.decoder.placement import (
    DeviceMap,
    Loading,
    Placement,
    Report,
    distinct_parameters,
)
from phaseprune.decoder.source import Source
from phaseprune.errors import UserError

#: What ``--device`` says for a map that accelerate makes.
MAP = "map"


def is_map(device: object) -> bool:
    """Whether what was given as a device is a map."""
    return not isinstance(device, str) or device == MAP


def require_accelerate() -> None:
    """Refuse where what spreads models is not installed.

    Raises:
        UserError: says what to install.
    """
    if find_spec("accelerate") is None:
        raise UserError(
            f"--device={MAP} needs accelerate, which spreads a model over devices; "
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
    raise UserError(f"{source.name}: --device={MAP} cannot be used here: {why}")


class Mapped(Placement):
    """Modules on several devices, in host memory or on disk, moved to where they run by hooks.

    Attributes:
        device_map: as asked for.
    """

    refusals = {
        "gradients": "{name} is spread over several places and gives no gradients, which this "
        "method needs; give one --device, or choose another method",
        "halves": "{name}: --granularity runs halves of blocks, which needs all weights in one "
        f"memory, and --device={MAP} spreads them; leave one of the two out",
        "merging": "{name}: blocks cannot be merged while they are spread by a device map; load "
        "the model on one device, or choose another method",
    }

    def __init__(self, model: nn.Module, blocks_path: str, device_map: DeviceMap):
        super().__init__(model, blocks_path)
        self.device_map = device_map

    @classmethod
    def load(cls, loading: Loading) -> tuple[Placement, Report]:
        """Let transformers load a model and spread it.

        ``max_memory`` is of each accelerator, or of host memory where there is none; weights get
        most of that.
        """
        require_accelerate()
        automatic = isinstance(loading.device_map, str)
        limited = automatic and loading.max_memory is not None
        # Weights on disk are read from the checkpoint, but for those that loading changes.
        folder = tempfile.mkdtemp(prefix="phaseprune-offload-")
        told = logging.getLogger("accelerate")
        level = told.level
        told.setLevel(logging.ERROR)  # offloaded weights are what was asked for
        try:
            model, report = loading.from_pretrained(
                device_map="auto" if automatic else dict(loading.device_map),
                max_memory=_room(loading.max_memory) if limited else None,
                offload_folder=folder,
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            told.setLevel(level)
        weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
        path = loading.find_blocks(model)
        for block in model.get_submodule(path):
            _fetch_at_once(block)
        placement = cls(model.eval().requires_grad_(False), path, loading.device_map)
        return placement, report

    def _beside(self, max_memory: int | None) -> int | None:
        return max_memory and max(0, max_memory - self.held_bytes)

    def _map_of(self, kept: Sequence[int]) -> DeviceMap:
        return pruned_map(self.device_map, self.blocks_path, kept)

    @property
    def device(self) -> torch.device:
        """Where the map has the model run."""
        return runs_on(self.model) or super().device

    def block_device(self, block: int) -> torch.device:
        """Where the map has a block run."""
        return runs_on(self.blocks[block]) or self.device

    @property
    def held_bytes(self) -> int:
        """Of the device's own weights and the largest offloaded part."""
        device = self.device
        parts = [*self.blocks, find_head(self.model), self.model.get_input_embeddings()]
        parameters = distinct_parameters(self.model).values()
        own = sum(p.nbytes for p in parameters if _is_on(p, device))
        return own + max(sum(p.nbytes for p in part.parameters() if p.is_meta) for part in parts)

    def resident(self, block: int, then: int | None = None) -> AbstractContextManager[None]:
        """Have offloaded weights of a block fetched."""
        return fetched(self.blocks[block])

    def fetched(self, module: nn.Module, recurse: bool = True) -> AbstractContextManager[None]:
        """The same of any module."""
        return fetched(module, recurse)

    def described(self, name: str) -> str:
        """Which places the blocks lie in."""
        counts = Counter(block_places(self.model, self.blocks_path))
        where = ", ".join(f"{count} on {place}" for place, count in counts.items())
        return f"{name} is spread over what there is; its blocks: {where}"


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


def _is_on(tensor: torch.Tensor, device: torch.device) -> bool:
    return tensor.device.type == device.type and device.index in (None, tensor.device.index)
