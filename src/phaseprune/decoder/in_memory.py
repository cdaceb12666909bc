"""A transformers model that is in memory already, in place of one that is loaded by its name.

Without files, its fingerprints are of what it is: configuration, weights, and the tokenizer as it
would be saved.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from phaseprune.decoder.companions import save_tokenizer
from phaseprune.decoder.source import Source
from phaseprune.errors import UserError, shown

#: What of a configuration says where it came from, and not what the model is.
_OF_LOADING = ("_name_or_path", "transformers_version", "architectures")


class InMemory(Source):
    """The source of a model that was given as an object.

    Args:
        name: what it is called.
        model: of transformers,
        tokenizer: and its tokenizer.
    """

    __eq__, __hash__ = object.__eq__, object.__hash__

    def __init__(self, name: str, model: nn.Module, tokenizer: Any):
        self.__dict__.update(name=name, model=model, tokenizer=tokenizer)

    def __repr__(self) -> str:
        return f"InMemory({self.name!r})"

    @property
    def directory(self) -> Path:
        """None: whatever needs files is refused.

        Raises:
            UserError: always; says what to do.
        """
        raise UserError(
            f"{self.name}: the model was given in memory, so there are no files for this; save "
            "model and tokenizer with save_pretrained and load that directory"
        )

    @property
    def is_checkpoint(self) -> bool:
        """There are no files that could be copied."""
        return False

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 over the configuration and every weight, by name, read only once."""
        config = self.model.config.to_dict()
        stated = {name: value for name, value in config.items() if name not in _OF_LOADING}
        digest = hashlib.sha256(json.dumps(stated, sort_keys=True, default=str).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            told = [name, str(tensor.dtype), list(tensor.shape)]
            digest.update(json.dumps(told).encode())
            values = tensor.detach().contiguous().cpu().reshape(-1)
            digest.update(values.view(torch.uint8).numpy())
        return digest.hexdigest()

    @property
    def identity(self) -> dict[str, Any]:
        """The fingerprints, and that there is no name by which the model could be loaded again."""
        return super().identity | {"in_memory": True}

    @cached_property
    def _saved_tokenizer(self) -> tuple[str | None, str | None]:
        """Fingerprints of tokenizer and chat template, from the files that it is saved as."""
        with TemporaryDirectory() as folder:
            save_tokenizer(self.tokenizer, Path(folder))
            files = Source(self.name, Path(folder))
            return files.tokenizer_fingerprint, files.chat_template_fingerprint

    @property
    def tokenizer_fingerprint(self) -> str | None:
        """Sha256 over the tokenizer as it is saved."""
        return self._saved_tokenizer[0]

    @property
    def chat_template_fingerprint(self) -> str | None:
        """Sha256 over its chat templates; None where there are none."""
        return self._saved_tokenizer[1]


def in_memory(model: Any, tokenizer: Any, given: Mapping[str, Any]) -> InMemory:
    """The source of a model that is in memory, which is put in eval mode, without gradients.

    Args:
        model: of transformers.
        tokenizer: of transformers, its own.
        given: options of ``load_model`` that are of loading, by name.

    Raises:
        UserError: it is no causal language model of transformers, whole and on one device; it has
            no tokenizer; or an option would load it otherwise.
    """
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    if not isinstance(model, PreTrainedModel):
        merge = (
            "; merge the adapter first (merge_and_unload)" if hasattr(model, "peft_config") else ""
        )
        raise UserError(
            "load_model takes a name (hub id, directory, .gguf file or 'demo') or a transformers "
            f"model with its tokenizer, not {_kind(model)}{merge}"
        )
    name = str(getattr(model, "name_or_path", "") or type(model).__name__)
    if tokenizer is None:
        raise UserError(
            f"{name}: a model in memory needs its tokenizer too, as load_model(model, "
            "tokenizer=tokenizer)"
        )
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise UserError(
            f"{name}: tokenizer must be a transformers tokenizer and is {_kind(tokenizer)}; give "
            "AutoTokenizer.from_pretrained(…)"
        )
    changed = [option for option, value in given.items() if value not in (None, False, "auto")]
    if changed:
        raise UserError(
            f"{name}: {changed[0]} is for loading by name, and this model is in memory; leave it "
            "out, and move or convert the model itself (model.to)"
        )
    if getattr(model, "_hf_peft_config_loaded", False):
        raise UserError(
            f"{name}: the model has an adapter in it, which is no part of its blocks; merge it "
            "first, or give the model without it"
        )
    if model.config.is_encoder_decoder or model.get_output_embeddings() is None:
        raise UserError(
            f"{name}: {type(model).__name__} is not a causal (decoder-only) language model with an "
            "output head; give one such as LlamaForCausalLM"
        )
    places = {parameter.device for parameter in model.parameters()}
    if len(places) > 1 or any(place.type == "meta" for place in places):
        raise UserError(
            f"{name}: the model's weights are not all on one device "
            f"({', '.join(sorted(map(str, places)))}); move them with model.to(…), or load it by "
            "name with device='map'"
        )
    model.eval().requires_grad_(False)
    return InMemory(name, model, tokenizer)


def _kind(value: Any) -> str:
    """What an object is, in words."""
    kind = type(value)
    if kind.__module__ == "builtins":
        whole = isinstance(value, str | int | float)
        return f"{kind.__name__} {shown(value)}" if whole else kind.__name__
    return f"a {kind.__module__.split('.')[0]} {kind.__name__}"
