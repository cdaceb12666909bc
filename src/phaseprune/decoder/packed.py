"""Packed rows: the tokens of many sequences in one row, each computed once and none padded.

Sequences that begin alike share the tokens that they have in common, so a row is a forest: every
token sees what stands before it in its own sequences and nothing else. A row's hidden states may be
those of several streams at once, ``[S, N, D]``. The model's own code runs; only its attention
function is replaced, through transformers' registries of attention and mask functions. Which tokens
see each other is asked of the model's own mask function (causal, sliding, chunked), evaluated on
positions in place of indices.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import torch
from torch.nn import functional
from torch.utils import _pytree as pytree

from phaseprune.decoder.blocks import Calls, record_calls, run_block
from phaseprune.decoder.decoder import Decoder


def record_packed(decoder: Decoder, packing: Packing) -> Calls:
    """How the model calls its blocks for a packed row; its masks are left to our attention."""
    with our_attention(decoder, Pass(packing, packing.everyone, {})):
        return record_calls(decoder, packing.tokens, **_inputs(packing))


def forward_packed(decoder: Decoder, packing: Packing, trunk: Trunk) -> Any:
    """What the model's own forward gives for a packed row; gradients flow, into the trunk too.

    Args:
        decoder: a model on one device.
        packing: the row.
        trunk: as of ``run_packed``, of all blocks at once.
    """
    with our_attention(decoder, Pass(packing, packing.everyone, trunk)):
        return decoder.model(input_ids=packing.tokens, use_cache=False, **_inputs(packing))


def _inputs(packing: Packing) -> dict[str, torch.Tensor]:
    everyone = torch.ones_like(packing.tokens)  # without it transformers looks for packed rows too
    return {"position_ids": packing.positions, "attention_mask": everyone}


@torch.no_grad()
def run_packed(
    decoder: Decoder, index: int, hidden: torch.Tensor, calls: Calls, packing: Packing, trunk: Trunk
) -> torch.Tensor:
    """Block ``index`` on ``[S, N, D]`` hidden states of a packed row.

    Args:
        decoder: the model.
        index: original index of the block.
        hidden: S streams.
        calls: from ``record_packed``.
        packing: the row.
        trunk: keys and values of the units before; those of this row's trunk units are added.
    """
    here = packing.on(decoder.block_device(index))
    return _run(decoder, index, hidden, calls, Pass(here, here.everyone, trunk))


@torch.no_grad()
def run_packed_reads(
    decoder: Decoder, index: int, hidden: torch.Tensor, calls: Calls, packing: Packing, trunk: Trunk
) -> torch.Tensor:
    """``[S, R, D]`` outputs of a block at the read tokens alone.

    The block is begun for all tokens and left as soon as their keys and values are known, then run
    for the read ones, so the rest of its work is done for those only.
    """
    if len(packing.reads) == packing.tokens.shape[1]:  # in the order of the tokens
        return run_packed(decoder, index, hidden, calls, packing, trunk)
    here = packing.on(decoder.block_device(index))
    try:
        _run(decoder, index, hidden, calls, Pass(here, here.everyone, trunk, begin=True))
    except KeysKnown as found:
        keys = found.args
    else:
        raise NotPackable("a block does not attend")
    if not len(packing.reads):
        return hidden[:, :0]
    readers = Pass(here, here.readers, trunk, keys)
    return _run(decoder, index, hidden[:, packing.reads], _at_reads(calls, index, packing), readers)


def _at_reads(calls: Calls, index: int, packing: Packing) -> Calls:
    """The arguments of a block's call for the read tokens alone."""
    length = packing.tokens.shape[1]

    def chosen(value):
        if isinstance(value, torch.Tensor) and value.shape[:2] == (1, length):
            return value[:, packing.reads]
        return value

    return Calls(calls.embedded, {index: pytree.tree_map(chosen, calls.arguments[index])})


def _run(
    decoder: Decoder, index: int, hidden: torch.Tensor, calls: Calls, state: Pass
) -> torch.Tensor:
    with our_attention(decoder, state):
        return run_block(decoder, index, hidden, calls)


#: The name that our attention has in transformers' registries.
ATTENTION = "phaseprune"

#: Keys and values of trunk units, for one block and some streams: by the number of the unit and of
#: the attention inside the block.
Trunk = dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Group:
    """Units of similar length behind the same trunk, whose keys are laid side by side.

    Attributes:
        index: ``[U * T]`` the row's token at each place; padding repeats token 0.
        units: U.
        trunk: numbers of the units whose keys stand before each unit's own.
        positions: ``[U, P + T]`` position of each key, the trunk's P first.
    """

    index: torch.Tensor
    units: int
    trunk: tuple[int, ...]
    positions: torch.Tensor


@dataclass(frozen=True)
class Asking:
    """The tokens that attend, laid out by group: all of the row's, or only those that are read.

    Attributes:
        index: for each group ``[U * A]`` the asking token at each place.
        visible: for each group ``[U, A, P + T]`` whether a key stands in the same sequence.
        positions: for each group ``[U, A]``.
        order: ``[N]`` where each asking token stands among the groups' places.
    """

    index: tuple[torch.Tensor, ...]
    visible: tuple[torch.Tensor, ...]
    positions: tuple[torch.Tensor, ...]
    order: torch.Tensor


@dataclass(frozen=True)
class Packing:
    """One packed row.

    Attributes:
        tokens: ``[1, N]`` token ids.
        positions: ``[1, N]`` position ids.
        reads: ``[R]`` the tokens whose output is read.
        groups: how keys are laid out.
        everyone: all tokens asking; ``readers``: those at ``reads`` alone.
        kept: ``(unit, start, end)`` of the units that are trunk of others.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    reads: torch.Tensor
    groups: tuple[Group, ...]
    everyone: Asking
    readers: Asking
    kept: tuple[tuple[int, int, int], ...]
    copies: dict[torch.device, Packing] = field(default_factory=dict, repr=False, compare=False)

    def on(self, device: torch.device) -> Packing:
        """The same for blocks that run on a device, copied there once."""
        if device == self.tokens.device:
            return self
        if device not in self.copies:
            self.copies[device] = _moved(self, device)
        return self.copies[device]


def _moved(part: Any, device: torch.device) -> Any:
    if isinstance(part, torch.Tensor):
        return part.to(device)
    if isinstance(part, tuple):
        return tuple(_moved(each, device) for each in part)
    if is_dataclass(part):
        own = {f.name: _moved(getattr(part, f.name), device) for f in fields(part)}
        return replace(part, **own)
    return part


class NotPackable(Exception):
    """A model does something that packed rows do not have."""


class KeysKnown(Exception):
    """Ends a block as soon as its keys and values are known, and carries them."""


@dataclass
class Pass:
    """One run of a block over a packed row: who asks, and where they find keys.

    ``keys`` are known beforehand where not all tokens ask; ``begin`` ends the run at the first
    attention.
    """

    packing: Packing
    asking: Asking
    trunk: Trunk
    keys: tuple[torch.Tensor, torch.Tensor] | None = None
    begin: bool = False
    attentions: int = 0
    originals: Mapping[int, str] = field(default_factory=dict)

    def attend(self, module, query, key, value, mask, **options) -> torch.Tensor:
        """``[S, N, H, d]`` attention outputs of the asking tokens."""
        number, self.attentions = self.attentions, self.attentions + 1
        if self.keys is None:
            for unit, start, end in self.packing.kept:
                self.trunk[unit, number] = key[:, :, start:end], value[:, :, start:end]
        elif number:
            raise NotPackable("a block attends twice")
        else:
            key, value = self.keys
        if self.begin:
            raise KeysKnown(key, value)
        masks = _masks(mask, self.packing, self.asking, query.dtype)
        attention, plain = self._original(module, options)
        parts = []
        for group, index, visible in zip(
            self.packing.groups, self.asking.index, masks, strict=True
        ):
            if not len(index):
                continue
            keys = self._lay_out(group, key, number, 0)
            values = self._lay_out(group, value, number, 1)
            asked = query.index_select(2, index).unflatten(2, (group.units, -1))
            if plain:
                scale = options.get("scaling")
                parts.append(_plain_attention(asked, keys, values, visible, scale))
            else:
                parts.append(
                    _other_attention(attention, module, asked, keys, values, visible, options)
                )
        together = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return together.index_select(1, self.asking.order)

    def _lay_out(self, group: Group, own: torch.Tensor, number: int, which: int) -> torch.Tensor:
        """``[S, H, U, P + T, d]`` keys (0) or values (1): the trunk's, then each unit's own."""
        own = own.index_select(2, group.index).unflatten(2, (group.units, -1))
        if not group.trunk:
            return own
        before = [
            self.trunk[unit, number][which][:, :, None].expand(-1, -1, group.units, -1, -1)
            for unit in group.trunk
        ]
        return torch.cat([*before, own], dim=3)

    def _original(self, module, options: Mapping[str, Any]) -> tuple[Callable, bool]:
        """The attention that the model would use, and whether it is softmax(q k + mask) v alone."""
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        config = getattr(module, "config", None)
        name = self.originals.get(id(config)) or next(iter(self.originals.values()))
        eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager)
        special = any(options.get(extra) is not None for extra in ("softcap", "position_bias"))
        return attention, name == "sdpa" and not special


def _plain_attention(query, key, value, mask, scale) -> torch.Tensor:
    """``[S, U * A, H, d]``; units take the place of heads, so that one mask serves all streams.

    Query heads that share a key head are laid one after the other as further askers.
    """
    streams, heads, units, asking, _ = query.shape
    shared = key.shape[1]
    each = heads // shared
    query = query.unflatten(1, (shared, each)).transpose(2, 3)
    out = functional.scaled_dot_product_attention(
        query.reshape(streams * shared, units, each * asking, -1),
        key.reshape(streams * shared, *key.shape[2:]),
        value.reshape(streams * shared, *value.shape[2:]),
        attn_mask=mask.repeat(1, 1, each, 1) if each > 1 else mask,
        scale=scale,
    )
    out = out.view(streams, shared, units, each, asking, -1).permute(0, 2, 4, 1, 3, 5)
    return out.reshape(streams, units * asking, heads, -1)


def _other_attention(attention, module, query, key, value, mask, options) -> torch.Tensor:
    """``[S, U * A, H, d]`` by the model's own attention function (soft caps, sinks, ...)."""
    streams, units = query.shape[0], query.shape[2]

    def rows(tensor):
        return tensor.transpose(1, 2).flatten(0, 1)

    # One mask for all heads, a row a unit.
    masks = mask[0][:, None].repeat(streams, 1, 1, 1)
    out, _ = attention(module, rows(query), rows(key), rows(value), masks, **options)
    return out.unflatten(0, (streams, units)).flatten(1, 2)


def _masks(marker, packing: Packing, asking: Asking, dtype: torch.dtype) -> Sequence[torch.Tensor]:
    """Additive masks ``[1, U, A, P + T]`` of each group, made once for a recording."""
    made = getattr(marker, "made", None)
    if made is None:
        raise NotPackable("the model changes or makes its masks by itself")
    found = made.get(id(asking))
    if found is None:
        first = torch.zeros((), dtype=torch.long, device=asking.order.device)
        found = []
        for group, visible, positions in zip(
            packing.groups, asking.visible, asking.positions, strict=True
        ):
            allowed = marker.function(first, first, positions[:, :, None], group.positions[:, None])
            mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
            found.append(mask.masked_fill_(~(visible & allowed), _least(dtype))[None])
        made[id(asking)] = found
    return found


def _least(dtype: torch.dtype) -> float:
    """Finite in bfloat16 too, which autocast may turn the mask into, and times log2(e).

    A place that only fills up a group sees nothing, and softmax of -inf alone has NaN gradients.
    Kernels on GPUs take powers of 2, so half of the least number is the least that stays finite.
    """
    return max(torch.finfo(dtype).min, torch.finfo(torch.bfloat16).min / 2)


_current: ContextVar[Pass] = ContextVar("the packed row whose attention is asked for")


def _attention(module, query, key, value, attention_mask=None, **options):
    return _current.get().attend(module, query, key, value, attention_mask, **options), None


def _mask(mask_function: Callable, **unused) -> torch.Tensor:
    """In place of a mask: the model's own mask function, to be asked about positions."""
    marker = torch.empty(1, 1, 0, 0).as_subclass(_Marker)
    marker.function, marker.made = mask_function, {}
    return marker


class _Marker(torch.Tensor):
    """Stays what it is where everything that a block is given is moved to the block's device."""

    def to(self, *args, **kwargs):  # noqa: D102
        return self


@contextmanager
def our_attention(decoder: Decoder, state: Pass) -> Iterator[None]:
    """Let the model attend by ``state`` while the context lasts."""
    _register()
    state.originals = {id(config): config._attn_implementation for config in decoder.configs}
    token = _current.set(state)
    cudnn = torch.backends.cuda.cudnn_sdp_enabled()
    # cuDNN, torch's first choice on Hopper, plans anew for each shape, for up to half a second, and
    # shapes here change with every group and number of streams.
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        for config in decoder.configs:
            config._attn_implementation_internal = ATTENTION
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(cudnn)
        _current.reset(token)
        for config in decoder.configs:
            config._attn_implementation_internal = state.originals[id(config)]


def _register() -> None:
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if ATTENTION not in ALL_ATTENTION_FUNCTIONS:
        ALL_ATTENTION_FUNCTIONS.register(ATTENTION, _attention)
        ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, _mask)
