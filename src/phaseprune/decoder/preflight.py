"""What can be said of a model before its weights are loaded.

The model is built without memory for its weights (on PyTorch's meta device) and held against the
headers of its files, so that even a large model takes no longer than reading those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from phaseprune.decoder.checkpoint import PLAIN, Checkpoint, read_checkpoint
from phaseprune.decoder.decoder import context_limit
from phaseprune.decoder.discover import (
    count_blocks,
    find_final_norm,
    find_head,
    locate_blocks,
    refuse_many_blocks,
)
from phaseprune.decoder.gguf_tensors import check_tensors
from phaseprune.decoder.gguf_tokenizer import bos_words
from phaseprune.decoder.load import first_line, load_errors
from phaseprune.decoder.names import (
    Names,
    block_of,
    changes_on_loading,
    compare_names,
    possible_names,
)
from phaseprune.decoder.own_pipeline import check_ids
from phaseprune.decoder.pruned_config import export_limits, original_of
from phaseprune.decoder.skeleton import build_empty
from phaseprune.decoder.source import Source, loaded_files
from phaseprune.decoder.tensors import WeightReader
from phaseprune.errors import UserError
from phaseprune.option_types import checked


@dataclass(frozen=True)
class Quantisation:
    """How the stored weights are quantised.

    Attributes:
        method: as ``gptq 4-bit`` or ``GGUF Q4_1``.
        dequantised: whether loading turns them into plain weights here.
        problem: why they cannot be loaded here (a missing library); None where they can.
    """

    method: str
    dequantised: bool = False
    problem: str | None = None


@dataclass(frozen=True)
class Preflight:
    """A model as its configuration and the headers of its files tell of it.

    Attributes:
        family: the configuration's ``model_type``.
        blocks: how many.
        blocks_path: where they are, as ``model.layers``.
        norm_path: the final norm, None where there is none.
        width: D, the values of a token's hidden state.
        tied: whether the head is the embeddings, as it will be loaded.
        tied_stated: whether the configuration says so.
        parameters: of the whole model, tied ones once.
        block_parameters: of each block.
        block_bytes: of each block, as stored.
        vocabulary: rows of the output head.
        embeddings: rows of the embeddings.
        dtype: most of the stored bytes' dtype.
        itemsize: bytes of a value in the configuration's own dtype.
        disk_bytes: of the weights' files; None where they are not known yet.
        max_length: tokens that the model is given at most, as lm-eval finds them.
        beginning: whether texts begin with BOS and what says so, of GGUF; None elsewhere.
        names: the weights held against the checkpoint's.
        quantisation: None for plain weights.
        export_problem: why no pruned checkpoint can be exported; None where one can.
        export_limits: which removals could not be exported; None where all can.
    """

    family: str
    blocks: int
    blocks_path: str
    norm_path: str | None
    width: int
    tied: bool
    tied_stated: bool
    parameters: int
    block_parameters: tuple[int, ...]
    block_bytes: tuple[int, ...]
    vocabulary: int
    embeddings: int
    dtype: str
    itemsize: int
    disk_bytes: int | None
    max_length: int
    beginning: str | None
    names: Names
    quantisation: Quantisation | None
    export_problem: str | None
    export_limits: str | None

    def weight_bytes(self, dtype: torch.dtype | None) -> int:
        """Memory for the weights when loaded in a dtype; None for the checkpoint's own."""
        packed = self.quantisation is not None and not self.quantisation.dequantised
        if packed and self.disk_bytes:
            return self.disk_bytes
        return self.parameters * (dtype.itemsize if dtype else self.itemsize)


def preflight(
    source: Source,
    config,
    trust_remote_code: bool = False,
    blocks: str | None = None,
    tokenizer=None,
) -> Preflight:
    """Say what can be said without loading weights.

    Args:
        source: the files; of a hub id the configuration and the index suffice.
        config: from ``load.read_config``.
        trust_remote_code: run the checkpoint's own code.
        blocks: module path of the list of blocks, where it is not found.
        tokenizer: of ``load.load_tokenizer``; None where it is not known.

    Raises:
        UserError: the model cannot be built, has no blocks or head, its files are unusable
            (pickles, missing or damaged ones), tensors of a GGUF file would be left out, or the
            tokenizer makes ids that the embeddings have no row for. What does not fit in an
            otherwise readable checkpoint is told in ``names``, ``quantisation`` and
            ``export_problem`` instead.
    """
    checked("--trust-remote-code", bool, trust_remote_code)
    checkpoint = read_checkpoint(source)
    if blocks is None:
        count_blocks(config)  # refused before a model is built
        refuse_many_blocks(source.name, config, checkpoint.longest_list)
    model = _skeleton(source, config, trust_remote_code)
    blocks_path = locate_blocks(model, config, blocks)
    count = len(model.get_submodule(blocks_path))
    norm_path = find_final_norm(model, blocks_path)
    head = find_head(model)
    embeddings = model.get_input_embeddings().weight
    tied = tied_stated = head.weight is embeddings
    if tied:
        tied = not _has_own_head(source, model, head, checkpoint)
    if tokenizer is not None:
        check_ids(source.name, tokenizer, embeddings.shape[0])
    beginning = None
    if source.gguf_file:
        check_tensors(model, source.gguf_header)
        beginning = None if tokenizer is None else bos_words(source.gguf_header, tokenizer)
    quantisation = _quantisation(config, checkpoint)
    own_dtype = getattr(config, "dtype", None) or torch.float32
    problem, limits = _export_words(config, model, blocks_path, quantisation, checkpoint)
    return Preflight(
        family=config.model_type,
        blocks=count,
        blocks_path=blocks_path,
        norm_path=norm_path,
        width=embeddings.shape[1],
        tied=tied,
        tied_stated=tied_stated,
        parameters=sum(p.numel() for p in model.parameters())
        + (head.weight.numel() if tied_stated and not tied else 0),
        block_parameters=tuple(
            sum(p.numel() for p in block.parameters()) for block in model.get_submodule(blocks_path)
        ),
        vocabulary=head.weight.shape[0],
        embeddings=embeddings.shape[0],
        block_bytes=_block_bytes(model, blocks_path, checkpoint, own_dtype.itemsize),
        dtype=checkpoint.file_type or checkpoint.dtype or str(own_dtype).removeprefix("torch."),
        itemsize=own_dtype.itemsize,
        disk_bytes=checkpoint.disk_bytes,
        max_length=context_limit(config, tokenizer),
        beginning=beginning,
        names=compare_names(model, blocks_path, checkpoint, quantisation is not None),
        quantisation=quantisation,
        export_problem=problem,
        export_limits=limits,
    )


def _skeleton(source: Source, config, trust_remote_code: bool) -> nn.Module:
    """The model with its weights' names and shapes and no memory for them."""
    with load_errors(source, "its configuration makes no model"):
        return build_empty(config, trust_remote_code)


def _has_own_head(
    source: Source, model: nn.Module, head: nn.Module, checkpoint: Checkpoint
) -> bool:
    """Whether the file has a head of its own beside the embeddings, though they are stated tied.

    transformers takes it then, unless the values are the same.
    """
    embeddings = model.get_input_embeddings()
    wanted = [
        f"{name}.weight" for name, module in model.named_modules() if module in (head, embeddings)
    ]
    renamings, _ = changes_on_loading(model)
    stored = {
        own: name
        for name in checkpoint.tensors or ()
        for own in possible_names(name, model.base_model_prefix, renamings)
        if own in wanted
    }
    if len(stored) < 2 or len({*stored.values()}) < 2:
        return False
    files = loaded_files(source)
    if source.gguf_file or not files or not all(path.is_file() for path in files):
        return True
    try:
        return not WeightReader(files).begin_alike(*stored.values())
    except UserError:  # packed weights, which no two parts share
        return True


def _block_bytes(
    model: nn.Module, blocks_path: str, checkpoint: Checkpoint, itemsize: int
) -> tuple[int, ...]:
    """Of each block, as stored; by its parameters where no file is at hand."""
    base, blocks = model.base_model_prefix, model.get_submodule(blocks_path)
    if not checkpoint.has_shapes:
        return tuple(sum(p.numel() for p in block.parameters()) * itemsize for block in blocks)
    paths = (
        ["blk"]
        if checkpoint.file_type
        else [blocks_path, f"{base}.{blocks_path}", blocks_path.removeprefix(f"{base}.")]
    )
    totals = dict.fromkeys(range(len(blocks)), 0)
    for name, tensor in checkpoint.tensors.items():
        block = block_of(name, paths)
        if block in totals:
            totals[block] += tensor.nbytes
    return tuple(totals.values())


def _quantisation(config, checkpoint: Checkpoint) -> Quantisation | None:
    if checkpoint.file_type:
        plain = checkpoint.file_type in PLAIN
        return None if plain else Quantisation(f"GGUF {checkpoint.file_type}", dequantised=True)
    text = config.get_text_config(decoder=True)
    stated = getattr(config, "quantization_config", None) or getattr(
        text, "quantization_config", None
    )
    if stated is None:
        return None
    settings = dict(stated) if isinstance(stated, Mapping) else stated.to_dict()
    given = settings.get("quant_method", "unnamed")
    method = str(getattr(given, "value", given))
    bits = 4 if settings.get("load_in_4bit") else 8 if settings.get("load_in_8bit") else None
    bits = bits or settings.get("bits")
    name = f"{method} {bits}-bit" if bits else method
    from transformers.quantizers.auto import AutoHfQuantizer

    try:
        quantizer = AutoHfQuantizer.from_config(settings, pre_quantized=True)
        quantizer.validate_environment(device_map=None, weights_only=True)
    except Exception as error:  # noqa: BLE001 - each method says in its own way what it lacks
        return Quantisation(name, problem=first_line(error))
    return Quantisation(name, bool(getattr(quantizer.quantization_config, "dequantize", False)))


def _export_words(
    config,
    model: nn.Module,
    blocks_path: str,
    quantisation: Quantisation | None,
    checkpoint: Checkpoint,
) -> tuple[str | None, str | None]:
    """Why nothing can be exported, and else what cannot."""
    if quantisation is not None and not checkpoint.file_type:
        return (
            f"a checkpoint quantised by {quantisation.method} cannot be exported as a plain one; "
            "de-quantise it first, or prune the unquantised model and quantise the export"
        ), None
    some, words = export_limits(original_of(config, model, blocks_path))
    return (None, words) if some else (f"export of {config.model_type}: {words}", None)
