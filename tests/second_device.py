"""Further devices, played by the processor: enough to see that no code of ours assumes one.

A tensor "elsewhere" holds a tensor in host memory and says that it is on another device. Operations
that mix devices fail as they do on real ones; only transfers may. What a real device does with
speed, memory and rounding cannot be seen here.
"""

from __future__ import annotations

from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

#: A kind of device that torch has a name for and no code in an ordinary build.
KIND = "lazy"
TRANSFERS = (torch.ops.aten._to_copy, torch.ops.aten.copy_)
#: As on a GPU, indices (and values of no dimension) may be in host memory.
INDEXING = (torch.ops.aten.index, torch.ops.aten.index_put_)


class Elsewhere(torch.Tensor):
    """A tensor that says that it is on another device."""

    @staticmethod
    def __new__(cls, held, place=None, requires_grad=False):
        if place is None:  # a parameter is made anew, on the device of its value
            return torch.nn.Parameter(held, requires_grad=requires_grad)
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            dtype=held.dtype,
            device=place,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
        )
        made.held = held
        return made

    def __init__(self, *args, **kwargs):
        pass

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return run(function, args, kwargs or {})


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return run(function, args, kwargs or {})


class _Constants(TorchFunctionMode):
    """Between tensors and Python values, which torch does not dispatch."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            place = kwargs.pop("device")
            return function(*args, **kwargs).to(place)
        if function is torch.Tensor.tolist:
            return function(args[0].to("cpu"))
        if function is torch.Tensor.__getitem__:
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            index = tuple(torch.tensor(i) if isinstance(i, list) else i for i in index)
            return function(args[0], index)
        return function(*args, **kwargs)


@contextmanager
def further_devices():
    """Let there be further devices ``lazy:0``, ``lazy:1``, … while the context lasts."""
    with _Operations(), _Constants():
        yield


def run(function, args, kwargs):
    tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    packet = function.overloadpacket
    checked = tensors[:1] if packet in INDEXING else [t for t in tensors if t.dim()]
    places = {t.device for t in checked}
    indices = {t.device for t in tensors[1:]} - {torch.device("cpu")}
    wrong = packet in INDEXING and not indices <= places
    if packet not in TRANSFERS and (len(places) > 1 or wrong):
        found = sorted(map(str, places | indices))
        raise RuntimeError(f"Expected all tensors to be on the same device, {function}: {found}")
    asked = kwargs.get("device")
    if asked is None:
        first = tensors[:1] if packet in TRANSFERS else (checked or tensors)
        place = first[0].device if first else torch.device("cpu")
    else:
        place = torch.device(asked)
    owners = {id(t.held): t for t in tensors if isinstance(t, Elsewhere)}
    args, kwargs = pytree.tree_map_only(Elsewhere, lambda t: t.held, (args, kwargs))
    if place.type == KIND and asked is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    with torch.utils._python_dispatch._disable_current_modes():
        out = function(*args, **kwargs)
    if place.type != KIND:
        return out
    return pytree.tree_map_only(
        torch.Tensor, lambda t: owners[id(t)] if id(t) in owners else Elsewhere(t, place), out
    )
