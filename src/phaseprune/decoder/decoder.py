"""A loaded causal language model and where its parts are."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from phaseprune.decoder.placement import Placement
from phaseprune.decoder.source import Source

if TYPE_CHECKING:
    from phaseprune.decoder.own_pipeline import Pipeline


#: lm-eval's own (``HFLM.max_length``), in its order, and what it takes where nothing is stated.
LM_EVAL_FIELDS = ("n_positions", "max_position_embeddings", "n_ctx")
LM_EVAL_DEFAULT = 2048
#: Fields of single families that lm-eval does not read: more than they state fails in some (MPT).
OWN_FIELDS = ("max_seq_len", "seq_length", "max_sequence_length", "model_max_length")
#: transformers' "no limit" of a tokenizer is a number of this size.
UNLIMITED = 10**29


@dataclass
class Decoder:
    """A loaded causal language model and where its parts are.

    Attributes:
        name: what the user called it.
        model: the transformers model, in eval mode.
        tokenizer: its tokenizer.
        source: its files.
        blocks: the decoder layers; the position is the original 0-based index.
        blocks_path: their module path, as ``model.layers``.
        norm_path: the final norm's, for display; the readout runs the model's own code.
        head: the output head.
        placement: where its weights are.
        input_name: what a block calls the hidden state that it is given.
        output_length: 0 where blocks return a tensor, else the length of the tuple they return.
        packed_length: the most tokens of a sequence that the model runs exactly in a packed row
            (``decoder.packed``); 0 where it runs none, None where that was not tried out yet.
        reads_alone: whether a block of a packed row can be run for its read tokens alone.
        readout_difference: max |readout at L - the model's logits|, measured at load.
        max_memory: bytes that a run may take, weights included; None for what is free.
        trained: whether the weights in memory are no longer those of the files.
        pipeline: what running real prompts through the checkpoint's own pipeline showed at load.
        position_limit: rows of the model's table of positions; None where it has none.
        block_names: what ``blocks`` are in words where they are none (``sublayers.halved``).
    """

    name: str
    model: nn.Module = field(repr=False)
    tokenizer: object = field(repr=False)
    source: Source
    blocks: nn.ModuleList = field(repr=False)
    blocks_path: str
    norm_path: str | None
    head: nn.Module = field(repr=False)
    placement: Placement = field(repr=False)
    input_name: str = "hidden_states"
    output_length: int = 0
    packed_length: int | None = None
    reads_alone: bool = False
    readout_difference: float = float("nan")
    max_memory: int | None = None
    trained: bool = False
    block_names: Sequence[str] | None = field(default=None, repr=False)
    pipeline: Pipeline | None = field(default=None, repr=False)
    position_limit: int | None = None

    @property
    def config(self):
        """The transformers configuration."""
        return self.model.config

    @cached_property
    def configs(self) -> list:
        """The configurations that the model's modules look at, each once."""
        found = {id(m.config): m.config for m in self.model.modules() if hasattr(m, "config")}
        return [c for c in found.values() if hasattr(c, "_attn_implementation_internal")]

    @property
    def family(self) -> str:
        """The configuration's ``model_type``, for display only."""
        return self.config.model_type

    @property
    def device(self) -> torch.device:
        """Where tokens, states and logits are; blocks may run elsewhere."""
        return self.placement.device

    @property
    def dtype(self) -> torch.dtype:
        """What hidden states are in; quantised weights (integers, 8-bit floats) do not tell."""
        computed = (
            parameter.dtype
            for parameter in self.blocks.parameters()
            if parameter.is_floating_point() and parameter.dtype.itemsize > 1
        )
        return next(computed, self.model.dtype)

    @property
    def width(self) -> int:
        """D, the values of a token's hidden state."""
        return self.model.get_input_embeddings().weight.shape[1]

    @property
    def weight_bytes(self) -> int:
        """Of the weights in memory, at most."""
        return self.placement.held_bytes

    @property
    def stated_length(self) -> int:
        """Tokens that the model takes by its configuration or tokenizer, as lm-eval finds them."""
        return context_limit(self.config, self.tokenizer)

    @property
    def max_length(self) -> int:
        """Tokens that the model is given at most."""
        return min(self.stated_length, self.position_limit or self.stated_length)

    def called(self, block: int) -> str:
        """What a block is called in messages."""
        return self.block_names[block] if self.block_names else f"block {block}"

    def resident(self, block: int, then: int | None = None) -> AbstractContextManager[None]:
        """Have a block's weights where it runs while the context lasts (``Placement.resident``)."""
        return self.placement.resident(block, then)

    def block_device(self, block: int) -> torch.device:
        """Where a block runs."""
        return self.placement.block_device(block)

    def block_output(self, hidden: torch.Tensor):
        """A hidden state in the form in which this model's blocks return it (tensor or tuple)."""
        if self.output_length == 0:
            return hidden
        return (hidden, *[None] * (self.output_length - 1))


def context_limit(config: Any, tokenizer: Any = None) -> int:
    """Tokens that a model is given at most, so that figures are those of lm-eval.

    lm-eval takes the first of ``n_positions``, ``max_position_embeddings`` and ``n_ctx`` of the
    configuration, else the tokenizer's ``model_max_length``, else 2048. A family's own field, which
    lm-eval does not know, can only lower that.

    Args:
        config: of transformers.
        tokenizer: of transformers; None where it is not known.
    """
    text = config.get_text_config(decoder=True)
    stated = _first(text, LM_EVAL_FIELDS)
    if stated is not None:
        return stated
    told = _length(getattr(tokenizer, "model_max_length", None))
    found = LM_EVAL_DEFAULT if told is None else told
    return min(found, _first(text, OWN_FIELDS) or found)


def _first(config: Any, fields: tuple[str, ...]) -> int | None:
    lengths = (_length(getattr(config, field, None)) for field in fields)
    return next((length for length in lengths if length is not None), None)


def _length(value: Any) -> int | None:
    """A length that limits anything; XLNet states -1, and tokenizers a huge number, for none."""
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if usable and 0 < value < UNLIMITED else None
