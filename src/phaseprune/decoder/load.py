"""Loading a decoder, checked: nothing random, nothing NaN, nothing that is not causal."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from phaseprune.decoder.budget import fits, in_words, parse_bytes
from phaseprune.decoder.checkpoint import Checkpoint, read_checkpoint
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.discover import (
    count_blocks,
    find_final_norm,
    find_head,
    find_input_name,
    locate_blocks,
    refuse_many_blocks,
)
from phaseprune.decoder.gguf_keys import settle_config
from phaseprune.decoder.gguf_tensors import check_tensors
from phaseprune.decoder.gguf_tokenizer import settle_tokenizer
from phaseprune.decoder.in_memory import InMemory, in_memory
from phaseprune.decoder.mapped import (
    Mapped,
    is_map,
    main_device,
    refuse_unmappable,
    require_accelerate,
)
from phaseprune.decoder.own_pipeline import check_ids, compare_pipelines
from phaseprune.decoder.placement import DeviceMap, Loading, Placement, Resident
from phaseprune.decoder.skeleton import build_empty
from phaseprune.decoder.source import (
    INDEX,
    SINGLE,
    Source,
    find_source,
    loaded_files,
    read_index,
    read_json_object,
    weight_map,
)
from phaseprune.decoder.streamed import Streamed, streaming_problem
from phaseprune.decoder.verify import check_block_weights, check_readout, check_weights
from phaseprune.errors import UserError, near_matches, shown
from phaseprune.option_types import check_options, checked

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
#: Fields of config.json that are looked at before transformers does: what they must be, and the
#: test of it.
_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "architectures": (
        'a list of names, as ["LlamaForCausalLM"]',
        lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
    ),
    "model_type": ('a name, as "llama"', lambda value: isinstance(value, str)),
    "num_hidden_layers": (
        "a whole number of at least 1",
        lambda value: type(value) is int and value >= 1,
    ),
    "tie_word_embeddings": ("true or false", lambda value: isinstance(value, bool)),
    "text_config": ("an object", lambda value: isinstance(value, dict)),
    "quantization_config": ("an object", lambda value: isinstance(value, dict)),
    "auto_map": ("an object", lambda value: isinstance(value, dict)),
}


def load_model(
    name: str | Path | nn.Module,
    tokenizer: Any = None,
    *,
    device: str | DeviceMap = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    blocks: str | None = None,
    stream: bool | None = None,
    max_memory: int | str | None = None,
) -> Decoder:
    """Load a decoder and check it.

    Args:
        name: hub id, local directory, local ``.gguf`` file, or ``demo``; or a causal language model
            of transformers that is in memory, whole and on one device. That is run where and as it
            is, in eval mode and without gradients.
        tokenizer: of a model in memory, its own; the one by the name is loaded otherwise.
        device: ``auto`` takes an accelerator where there is one; ``map`` spreads the model over
            all, host memory and disk, as does a dictionary of devices by module path (transformers'
            ``device_map``).
        dtype: ``float32``, ``bfloat16``, ``float16``; ``auto`` is float32 on the CPU and the
            checkpoint's own elsewhere.
        revision: of a hub model.
        trust_remote_code: run the checkpoint's own code; never unless asked.
        blocks: module path of the list of blocks, as ``model.layers``, where it is not found.
        stream: read blocks from disk when they run, two at a time in memory; by default where the
            weights do not fit into the budget.
        max_memory: what a run may take, weights included, on the device (each, with ``map``):
            bytes, or as ``8GB``; by default most of what is free.

    Raises:
        UserError: the model cannot be found or loaded, is no causal decoder, lacks weights, has NaN
            weights (names the block), its readout at L does not equal its own logits, what it says
            of a few real prompts is not what plain transformers says, or it cannot be run in the
            stated memory.
    """
    check_options(load_model, locals())
    max_memory = None if max_memory is None else parse_bytes(max_memory)
    if not isinstance(name, str | Path):
        options = {
            "device": device,
            "dtype": dtype,
            "revision": revision,
            "stream": stream,
            "trust_remote_code": trust_remote_code,
        }
        source = in_memory(name, tokenizer, options)
        placement = Resident(name, locate_blocks(name, name.config, blocks))
        return _checked(source, placement, tokenizer, max_memory)
    if tokenizer is not None:
        raise UserError(
            f"{name}: a model by name is loaded with its own tokenizer; leave tokenizer out, or "
            "give the model itself (AutoModelForCausalLM.from_pretrained)"
        )
    name = str(name)
    source = find_source(name, revision)
    config = read_config(source, trust_remote_code)
    if blocks is None:
        count_blocks(config)  # refused before weights are read
        refuse_many_blocks(name, config, _headers(source).longest_list)
    tokenizer = load_tokenizer(source, trust_remote_code)
    if source.gguf_file:
        _check_gguf_tensors(source, config)
    placement = _place(
        source,
        config,
        device,
        dtype,
        trust_remote_code,
        stream,
        max_memory,
        lambda model: locate_blocks(model, config, blocks),
    )
    return _checked(source, placement, tokenizer, max_memory)


def _checked(
    source: Source, placement: Placement, tokenizer: Any, max_memory: int | None
) -> Decoder:
    """The decoder that a placed model is, once it is found to be one."""
    model = placement.model
    decoder = Decoder(
        name=source.name,
        model=model,
        tokenizer=tokenizer,
        source=source,
        blocks=placement.blocks,
        blocks_path=placement.blocks_path,
        norm_path=find_final_norm(model, placement.blocks_path),
        head=find_head(model),
        placement=placement,
        input_name=find_input_name(placement.blocks),
        max_memory=max_memory,
        trained=isinstance(source, InMemory),
    )
    check_ids(source.name, tokenizer, model.get_input_embeddings().weight.shape[0])
    if has_own_head(decoder):
        state_own_head(decoder.config)
    check_weights(decoder)
    placement.on_read = lambda block: check_block_weights(decoder, block)
    decoder.readout_difference = check_readout(decoder)
    decoder.pipeline = compare_pipelines(decoder)
    return decoder


def read_config(source: Source, trust_remote_code: bool = False):
    """The configuration, refused unless it is that of a causal language model."""
    checked("--trust-remote-code", bool, trust_remote_code)  # never run code on a mere text
    if source.gguf_file and not (find_spec("gguf") and find_spec("accelerate")):
        raise UserError(
            f"{source.name}: reading GGUF needs two more packages; pip install 'phaseprune[gguf]'"
        )
    if not source.gguf_file:
        _refuse_odd_fields(source)
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    what = "it cannot be loaded"
    if source.gguf_file:
        kind = source.gguf_header.architecture
        what = f"transformers makes no configuration of this {kind} file"
    with load_errors(source, what):
        config = AutoConfig.from_pretrained(
            source.directory,
            trust_remote_code=trust_remote_code,
            **({"gguf_file": source.gguf_file} if source.gguf_file else {}),
        )
        if source.gguf_file:
            settle_config(config, source.gguf_header)
    if trust_remote_code and getattr(config, "auto_map", None):
        return config
    architectures = config.architectures or []
    classes = {cls for names in CAUSAL.values() for cls in _as_tuple(names)}
    listed = not architectures or any(name in classes for name in architectures)
    what = ", ".join(architectures) or config.model_type
    if architectures and listed and config.model_type not in CAUSAL:
        raise UserError(
            f"{source.name}: {what} of model_type {config.model_type} is none that transformers' "
            "AutoModelForCausalLM loads; give a checkpoint that it does"
        )
    if config.is_encoder_decoder or config.model_type not in CAUSAL or not listed:
        raise UserError(
            f"{source.name}: {what} is not a causal (decoder-only) language model; phaseprune "
            "reads decisions at the last token of one, so give a decoder such as Llama or Qwen"
        )
    return config


def load_tokenizer(source: Source, trust_remote_code: bool = False):
    """The tokenizer that comes with the weights."""
    checked("--trust-remote-code", bool, trust_remote_code)
    from transformers import AutoTokenizer

    with load_errors(source, "its tokenizer cannot be loaded"):
        tokenizer = AutoTokenizer.from_pretrained(
            source.directory,
            trust_remote_code=trust_remote_code,
            **({"gguf_file": source.gguf_file} if source.gguf_file else {}),
        )
        if source.gguf_file:
            settle_tokenizer(tokenizer, source.gguf_header)
        return tokenizer


def _refuse_odd_fields(source: Source) -> None:
    """Refuse a config.json with a field of another kind than any model has there.

    Raises:
        UserError: names the field, what it is, and what it must be.
    """
    try:
        stated = read_json_object(source.directory / "config.json")
    except UserError as error:
        raise UserError(f"{source.name}: it cannot be loaded ({error.typed})") from None
    for field, (what, fits_kind) in _FIELDS.items():
        value = stated.get(field)
        if value is not None and not fits_kind(value):
            raise UserError(
                f"{source.name}: config.json has {field} {shown(value)}, which must be {what}"
            )


def _headers(source: Source) -> Checkpoint:
    try:
        return read_checkpoint(source)
    except UserError as error:
        said = error.typed.removeprefix(f"{source.name}: ")
        raise UserError(f"{source.name}: it cannot be loaded ({said})") from None


def _check_gguf_tensors(source: Source, config) -> None:
    """Refuse a file with tensors that would be left out, before any is read."""
    with load_errors(source, "its configuration makes no model"):
        model = build_empty(config)
    check_tensors(model, source.gguf_header)


def has_own_head(decoder: Decoder) -> bool:
    """Whether the head is not the embeddings, as it was loaded.

    Where a file has a head of its own, transformers takes that, whatever the configuration says.
    """
    model, head = decoder.model, decoder.head
    embeddings = model.get_input_embeddings()
    if getattr(head, "weight", embeddings.weight) is embeddings.weight:
        return False
    named = {f"{name}.weight" for name, module in model.named_modules() if module is head}
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    return not named & (tied.keys() | set(tied.values()))


def state_own_head(config) -> None:
    """Have a configuration say, wherever it says so, that the head is not the embeddings."""
    for level in (config, config.get_text_config(decoder=True)):
        if getattr(level, "tie_word_embeddings", False):
            level.tie_word_embeddings = False


def _place(
    source: Source,
    config,
    device: str | DeviceMap,
    dtype: str,
    trust_remote_code: bool,
    stream: bool | None,
    max_memory: int | None,
    find: Callable[[nn.Module], str],
) -> Placement:
    """Load the weights where they are to be.

    Args:
        source: the files.
        config: from ``read_config``.
        device: as of ``load_model``.
        dtype: as of ``load_model``.
        trust_remote_code: as of ``load_model``.
        stream: as of ``load_model``.
        max_memory: in bytes.
        find: gives the path of a model's blocks.
    """
    mapped = device if is_map(device) else None
    device = pick_device(device)
    chosen = pick_dtype(dtype, device)
    if mapped is not None:
        refuse_unmappable(source, config, stream)
    loading = Loading(source, device, chosen, trust_remote_code, find, max_memory, mapped, config)
    with load_errors(source), plain_index(source):
        kind: type[Placement] = Mapped if mapped is not None else Resident
        if mapped is None and _is_streamed(source, config, device, chosen, stream, max_memory):
            kind = Streamed
        placement, report = kind.load(loading)
    missing = sorted(report["missing_keys"])
    if missing:
        raise UserError(
            f"{source.name}: the checkpoint lacks {len(missing)} of the model's weights, the first "
            f"{missing[0]}; they would be random, so give a complete checkpoint"
        )
    return placement


def _is_streamed(
    source: Source,
    config,
    device: str,
    dtype: torch.dtype | None,
    stream: bool | None,
    max_memory: int | None,
) -> bool:
    """Whether blocks are to be streamed.

    Raises:
        UserError: they are and cannot be; or are not, and the weights do not fit into the budget.
    """
    if stream is None and max_memory is None:  # a guess must not refuse what may yet work
        return streaming_problem(source, config) is None and not fits(source, dtype, device, None)
    if not stream and fits(source, dtype, device, max_memory):
        return False
    if stream is False:
        if max_memory is None:
            return False
        raise UserError(
            f"{source.name}: its weights alone take more than --max-memory "
            f"{in_words(max_memory)}; leave --no-stream out, or give more"
        )
    problem = streaming_problem(source, config)
    if problem is not None:
        raise UserError(f"{source.name}: {problem}; use --no-stream, with the memory it needs")
    return True


def pick_dtype(dtype: str, device: str) -> torch.dtype | None:
    """The dtype that a model runs in; None for the checkpoint's own.

    Raises:
        UserError: there is no such dtype.
    """
    if dtype not in ("auto", *DTYPES):
        raise UserError(
            f"--dtype is {dtype!r} and must be one of auto, {', '.join(DTYPES)}."
            + near_matches(dtype, DTYPES)
        )
    on_cpu = torch.device(device).type == "cpu"
    return DTYPES.get(dtype, torch.float32 if on_cpu else None)


def pick_device(name: str | DeviceMap) -> str:
    """The device that ``--device`` means; of a map, where most runs.

    Raises:
        UserError: it cannot be used here.
    """
    if is_map(name):
        require_accelerate()
        name = main_device(name, pick_device("auto"))
    if name == "auto":
        accelerator = (
            torch.accelerator.current_accelerator()
            if hasattr(torch, "accelerator") and torch.accelerator.is_available()
            else None
        )
        return accelerator.type if accelerator is not None else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"--device={name!r} cannot be used here ({first_line(error)}); try cpu or auto"
        ) from None
    return name


def silence_transformers() -> None:
    """Turn off transformers' own progress bars and warnings, for the command line."""
    from transformers.utils import logging as their_logging

    their_logging.disable_progress_bar()
    their_logging.set_verbosity_error()


def _as_tuple(names) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


class load_errors:  # noqa: N801 - a context manager
    """Turns what transformers raises for a bad checkpoint into one sentence."""

    def __init__(self, source: Source, what: str = "it cannot be loaded"):
        self.source, self.what = source, what

    def __enter__(self) -> None:
        self.logger = logging.getLogger("transformers")
        self.level = self.logger.level
        self.logger.setLevel(logging.ERROR)  # its report on missing weights is ours to make

    def __exit__(self, kind, error, traceback) -> None:
        self.logger.setLevel(self.level)
        expected = isinstance(error, Exception) and not isinstance(
            error, UserError | torch.OutOfMemoryError
        )
        if expected:  # readers of damaged files raise anything
            hint = (
                "; it needs the checkpoint's own code: add --trust-remote-code if you trust it"
                if "trust_remote_code" in str(error)
                else ""
            )
            raise UserError(
                f"{self.source.name}: {self.what} ({first_line(error)}){hint}"
            ) from error


def first_line(error: BaseException) -> str:
    """What an error says, on one line and not too long."""
    text = re.sub(r"\s+", " ", str(error)).strip()
    return text[:240] or type(error).__name__


@contextmanager
def plain_index(source: Source) -> Iterator[None]:
    """Have transformers load by an index without ``metadata``, which is only a note of sizes."""
    if source.gguf_file or not _lacks_metadata(source):
        yield
        return
    from transformers import modeling_utils

    names = weight_map(source)
    files = [str(path) for path in loaded_files(source)]

    def shards(*args, **kwargs):
        return files, {"all_checkpoint_keys": [*names], "weight_map": dict(names)}

    original = modeling_utils.get_checkpoint_shard_files
    modeling_utils.get_checkpoint_shard_files = shards
    try:
        yield
    finally:
        modeling_utils.get_checkpoint_shard_files = original


def _lacks_metadata(source: Source) -> bool:
    if (source.directory / SINGLE).is_file() or not (source.directory / INDEX).is_file():
        return False
    return not isinstance(read_index(source).get("metadata"), dict)
