"""What an exported model saves, measured: parameters, bytes on disk, and speed by turns."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.load import first_line, load_model
from phaseprune.decoder.placement import parameter_count
from phaseprune.decoder.reload import GENERATION_ERRORS, reload
from phaseprune.decoder.source import find_source
from phaseprune.errors import UserError
from phaseprune.progress import Progress, silent
from phaseprune.runs.atomic import write_json

LEAST_LENGTH = 8


@dataclass(frozen=True)
class Cost:
    """What one model takes.

    Attributes:
        parameters: each counted once.
        disk_bytes: of the files that hold its weights.
        stored_as: ``safetensors`` or ``gguf``, which may be quantised.
        prefill: tokens a second of a prompt, up to the first new token; median of the repeats.
        decode: new tokens a second after the first, with the KV cache; median of the repeats.
    """

    parameters: int
    disk_bytes: int
    stored_as: str
    prefill: float
    decode: float


@dataclass(frozen=True)
class Gain:
    """How many times as fast the exported model is; of the ratios of the repeats."""

    median: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Saving:
    """The full and the exported model, measured by turns in one process.

    Attributes:
        full: the full model.
        exported: the exported one.
        prefill: of the speed of a prompt.
        decode: of the speed of new tokens.
        repeats: turns of each model.
        prompt_tokens: of the prompt, one sequence.
        new_tokens: after the first.
        device: where, and ``dtype`` and ``threads``: how.
    """

    full: Cost
    exported: Cost
    prefill: Gain
    decode: Gain
    repeats: int
    prompt_tokens: int
    new_tokens: int
    device: str
    dtype: str
    threads: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@torch.no_grad()
def measure_saving(
    full: Decoder | str,
    exported: str | Path,
    *,
    repeats: int = 5,
    prompt_tokens: int = 128,
    new_tokens: int = 32,
    progress: Progress = silent,
) -> Saving:
    """Measure an exported model against the full one on this machine, as it is now.

    Both are in memory in the same dtype and take turns, so that they meet the same machine; a ratio
    is of two neighbouring turns.

    Args:
        full: the full model, or its name.
        exported: a directory that ``export`` wrote.
        repeats: turns of each, after one that is not counted.
        prompt_tokens: of the prompt, where the model takes as many.
        new_tokens: greedy ones after the first.
        progress: told of the turns.

    Raises:
        UserError: no exported model, one of another model, too few tokens or repeats, a model that
            is read from disk block by block (the disk would be measured), or one that cannot
            generate with the KV cache.
    """
    if repeats < 1 or new_tokens < 1 or prompt_tokens < 1:
        raise UserError("measuring a saving needs at least one repeat, prompt token and new token")
    decoder = load_model(full) if isinstance(full, str) else full
    notes = _notes(decoder, Path(exported))
    decoder.placement.require("timing", decoder.name)
    most = decoder.max_length or prompt_tokens + new_tokens + 1
    if most < LEAST_LENGTH:
        raise UserError(f"{decoder.name} takes {most} tokens, too few to measure its speed")
    new_tokens = min(new_tokens, most // 2)
    prompt_tokens = min(prompt_tokens, most - new_tokens - 1)
    short, _ = reload(decoder, notes["kept"], Path(exported))
    vocabulary = decoder.model.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(vocabulary, (1, prompt_tokens), generator=generator).to(decoder.device)
    models, turns = (decoder.model, short), []
    try:
        for turn in range(repeats + 1):
            turns.append([_seconds(model, prompt, new_tokens) for model in models])
            progress("saving: turns of both models", turn + 1, repeats + 1)
    except GENERATION_ERRORS as error:
        raise UserError(
            f"{decoder.name} cannot generate with the KV cache ({first_line(error)}), so there is "
            "no speed to measure"
        ) from None
    prefill, decode = ([[pair[part] for pair in turn] for turn in turns[1:]] for part in (0, 1))
    sources = decoder.source, find_source(str(exported))
    costs = [
        Cost(
            parameters=parameter_count(model),
            disk_bytes=sum(path.stat().st_size for path in source.weight_files),
            stored_as="gguf" if source.gguf_file else "safetensors",
            prefill=prompt_tokens / statistics.median(turn[place] for turn in prefill),
            decode=new_tokens / statistics.median(turn[place] for turn in decode),
        )
        for place, (model, source) in enumerate(zip(models, sources, strict=True))
    ]
    return Saving(
        *costs,
        _gain(prefill),
        _gain(decode),
        repeats,
        prompt_tokens,
        new_tokens,
        str(decoder.device),
        str(decoder.dtype).removeprefix("torch."),
        torch.get_num_threads(),
    )


def record_saving(exported: str | Path, saving: Saving) -> None:
    """Write a saving into the ``phaseprune.json`` of the exported model, as ``saving``."""
    path = Path(exported) / "phaseprune.json"
    notes = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, notes | {"saving": saving.to_dict()})


def _notes(decoder: Decoder, exported: Path) -> dict[str, Any]:
    try:
        notes = json.loads((exported / "phaseprune.json").read_text(encoding="utf-8"))
        made_of = notes["base_model_fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{exported} is no exported model (it has no phaseprune.json that says so); give a "
            "directory that phaseprune export wrote"
        ) from None
    if made_of != decoder.source.fingerprint:
        raise UserError(
            f"{exported} was made of another model than {decoder.name} (fingerprint "
            f"{made_of[:12]}, is {decoder.source.fingerprint[:12]})"
        )
    return notes


def _seconds(model, prompt: torch.Tensor, count: int) -> tuple[float, float]:
    """Of the prompt with the first new token, and of so many new tokens after it."""
    first = _generate(model, prompt, 1)
    return first, max(_generate(model, prompt, count + 1) - first, 1e-9)


def _generate(model, prompt: torch.Tensor, count: int) -> float:
    from transformers import GenerationConfig

    settings = GenerationConfig(
        do_sample=False, max_new_tokens=count, min_new_tokens=count, pad_token_id=0
    )
    began = time.perf_counter()
    made = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), generation_config=settings
    ).cpu()  # waits for the device
    seconds = time.perf_counter() - began
    if made.shape[1] != prompt.shape[1] + count:
        raise ValueError(f"{made.shape[1] - prompt.shape[1]} tokens came where {count} were asked")
    return seconds


def _gain(turns: Sequence[Sequence[float]]) -> Gain:
    ratios = [full / short for full, short in turns]
    return Gain(statistics.median(ratios), min(ratios), max(ratios))
