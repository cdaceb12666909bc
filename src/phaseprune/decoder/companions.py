"""What stands beside the weights: tokenizer, chat template, generation settings, licence.

Pruning changes none of it, so each file of the source is copied byte for byte. Only where the
source has no such files (GGUF, a model in memory) are they written anew, in words that older
programs read.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.source import CHAT_FILES, TOKENIZER_FILES
from phaseprune.runs.atomic import write_json

#: What a multimodal checkpoint has beside its tokenizer.
PROCESSOR_FILES = (
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "image_processor_config.json",
    "audio_tokenizer_config.json",
)
LICENCE = re.compile(r"licen[cs]e|notice|copying|use_policy|terms_of_use", re.IGNORECASE)
GENERATION = "generation_config.json"
#: What an old and a new tokenizer must read alike.
PROBE = "The sky is blue, 12.5 %\n\tisn't it? \u00fc\u4f60\u597d"
#: transformers 5's name of a class, and the one under which 4 has the same.
NEW_CLASS, OLD_CLASS = "TokenizersBackend", "PreTrainedTokenizerFast"
#: What transformers 5 writes into ``tokenizer_config.json`` about how it was loaded.
OF_LOADING = ("backend", "is_local", "local_files_only")


def write_companions(decoder: Decoder, out: Path) -> None:
    """Write everything that stands beside the weights and the configuration.

    Args:
        decoder: the loaded full model.
        out: the directory of the export, with its ``config.json``.
    """
    source = decoder.source.directory if decoder.source.is_checkpoint else None
    if source is not None:
        _copy(source, out, PROCESSOR_FILES)
        _copy(source, out, ("*.py",))
        for path in source.iterdir():
            if LICENCE.search(path.name) and path.is_file():
                shutil.copyfile(path, out / path.name)
        own = getattr(type(decoder.tokenizer), "vocab_files_names", None) or {}
        _copy(source, out, (*TOKENIZER_FILES, *CHAT_FILES, *own.values()))
    if source is None or not _reads_alike(decoder, out):
        save_tokenizer(decoder.tokenizer, out)
    if source is not None and (source / GENERATION).is_file():
        shutil.copyfile(source / GENERATION, out / GENERATION)
    elif decoder.model.generation_config is not None:
        # As they are, also where transformers finds them odd.
        write_json(out / GENERATION, decoder.model.generation_config.to_diff_dict())


def save_tokenizer(tokenizer: Any, out: Path) -> None:
    """Save a tokenizer in words that transformers 4 and 5 read alike."""
    tokenizer.save_pretrained(out)
    path = out / "tokenizer_config.json"
    stated = json.loads(path.read_text(encoding="utf-8"))
    if stated.get("tokenizer_class") == NEW_CLASS:
        stated["tokenizer_class"] = OLD_CLASS
    if isinstance(stated.get("extra_special_tokens"), list):
        stated["additional_special_tokens"] = stated.pop("extra_special_tokens")
    write_json(path, {name: v for name, v in stated.items() if name not in OF_LOADING})


def own_code(stated: dict[str, Any], directory: Path, hub_name: str | None) -> dict[str, Any]:
    """What ``auto_map`` may say in an export: its files are there, on the hub, or it is left out.

    Args:
        stated: the source's ``config.json``.
        directory: the export's.
        hub_name: of the source, where it came from there.
    """
    named = stated.get("auto_map")
    if not isinstance(named, dict):
        return {}
    modules = [str(one).split(".")[0] for one in named.values() if "--" not in str(one)]
    if all((directory / f"{module}.py").is_file() for module in modules):
        return {"auto_map": named}
    if hub_name is None:
        return {}
    return {
        "auto_map": {
            name: one if "--" in str(one) else f"{hub_name}--{one}" for name, one in named.items()
        }
    }


def _copy(source: Path, out: Path, patterns: Iterable[str]) -> None:
    for path in {path for one in patterns for path in source.glob(one) if path.is_file()}:
        target = out / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _reads_alike(decoder: Decoder, out: Path) -> bool:
    """Whether the copied files give the tokenizer that was loaded."""
    from transformers import AutoTokenizer

    trusted = type(decoder.tokenizer).__module__.startswith("transformers_modules")
    try:
        copied = AutoTokenizer.from_pretrained(out, trust_remote_code=trusted)
        return copied(PROBE).input_ids == decoder.tokenizer(PROBE).input_ids and len(copied) == len(
            decoder.tokenizer
        )
    except Exception:  # noqa: BLE001 - incomplete files, in whatever way
        return False
