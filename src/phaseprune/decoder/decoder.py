"""A loaded causal language model and where its parts are."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from phaseprune.decoder.source import Source


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
        input_name: what a block calls the hidden state that it is given.
        output_length: 0 where blocks return a tensor, else the length of the tuple they return.
        tree_tokens: the most tokens in a tree-shaped row that the model runs exactly; 0 for none.
        readout_difference: max |readout at L - the model's logits|, measured at load.
    """

    name: str
    model: nn.Module = field(repr=False)
    tokenizer: object = field(repr=False)
    source: Source
    blocks: nn.ModuleList = field(repr=False)
    blocks_path: str
    norm_path: str | None
    head: nn.Module = field(repr=False)
    input_name: str = "hidden_states"
    output_length: int = 0
    tree_tokens: int = 0
    readout_difference: float = float("nan")

    @property
    def config(self):
        """The transformers configuration."""
        return self.model.config

    @property
    def family(self) -> str:
        """The configuration's ``model_type``, for display only."""
        return self.config.model_type

    @property
    def device(self) -> torch.device:  # noqa: D102
        return next(self.model.parameters()).device

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
    def max_length(self) -> int | None:
        """Tokens that the model can take, if its configuration says so."""
        return getattr(self.config.get_text_config(), "max_position_embeddings", None)

    def block_output(self, hidden: torch.Tensor):
        """A hidden state in the form in which this model's blocks return it (tensor or tuple)."""
        if self.output_length == 0:
            return hidden
        return (hidden, *[None] * (self.output_length - 1))
