"""Exporting a pruned model as a plain Hugging Face checkpoint, proved by reloading it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from phaseprune.decision.laco import Mixtures, written
from phaseprune.decoder.companions import own_code, write_companions
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.discover import count_blocks
from phaseprune.decoder.export_notes import mergekit_yaml, model_card
from phaseprune.decoder.items import Item, check_items, lone_halves, parse_item, whole_blocks
from phaseprune.decoder.load import has_own_head, read_config, state_own_head
from phaseprune.decoder.merged import check_mergeable, merged_blocks
from phaseprune.decoder.patterns import (
    Pattern,
    find_pattern,
    llama_cpp_warnings,
    position_words,
)
from phaseprune.decoder.placement import parameter_count
from phaseprune.decoder.pruned_config import Original, export_limits, prune, read_original
from phaseprune.decoder.pruned_weights import write_kept_weights
from phaseprune.decoder.reload import ExportMismatch, compare_with_skipping, runs_own_code
from phaseprune.decoder.source import find_source, read_json_object
from phaseprune.decoder.stated_config import edited_config, text_part
from phaseprune.decoder.sublayers import Halves, find_halves
from phaseprune.decoder.zeroed import measure_zeroed
from phaseprune.errors import UserError
from phaseprune.runs.atomic import write_json, write_text


@dataclass(frozen=True)
class Export:
    """An exported checkpoint.

    Attributes:
        path: its directory.
        removed: original indices, in order of removal; halves of blocks as ``7.attention``.
        kept: original indices of the blocks that are there, in order.
        max_abs_logit_difference: between the checkpoint reloaded from disk and the full model that
            skips the removed blocks.
        parameters: of the exported model, and ``full_parameters`` of the full one.
        weight_bytes: of the tensors on disk.
        generated_tokens: how many tokens were generated alike with and without the KV cache; 0
            where the full model cannot do that either.
        merged: of blocks that took removed ones in, what their weights are a sum of
            (``decision.laco.written``); None where no weights changed.
        zeroed: of halves whose block is there (``decoder.zeroed.Zeroed``): which, and what a
            runtime that skips them would save; None where whole blocks are removed.
        warnings: where another program is known to make another model of it, a sentence each; None
            where there are none.
    """

    path: str
    removed: list[Item]
    kept: list[int]
    max_abs_logit_difference: float
    parameters: int
    full_parameters: int
    weight_bytes: int
    generated_tokens: int
    merged: dict[str, dict[str, int]] | None = None
    zeroed: dict[str, Any] | None = None
    warnings: list[str] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; those that may be None only where there is something."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def export(
    decoder: Decoder,
    remove: Sequence[Item],
    out: str | Path,
    *,
    figures: dict[str, Any] | None = None,
    healed: Mapping[str, Any] | None = None,
    merged: Mixtures | None = None,
) -> Export:
    """Write the model without some blocks, reload it from disk, and compare.

    Args:
        decoder: the loaded full model.
        remove: original indices of the blocks to remove, or halves of blocks as ``7.attention``
            and ``7.mlp``. The weights of a half whose block stays become zeros.
        out: directory of the checkpoint. Must not exist, or be empty, or hold this very export,
            which is then only held against the model again.
        figures: measured figures for the model card and ``phaseprune.json``.
        healed: of a shortened model that was trained since: what stands in ``phaseprune.json`` in
            place of what this decoder says (the base model, the blocks removed from that, …).
        merged: of blocks that stay and took removed ones in, what their weights are a sum of.

    Returns:
        What was written and how closely it matches.

    Raises:
        UserError: blocks out of range, ``out`` in use, or a model that cannot be exported.
        ExportMismatch: the reloaded checkpoint differs; it has been deleted.
    """
    remove = [parse_item(item) if isinstance(item, str) else item for item in remove]
    _check_named(remove, len(decoder.blocks))
    if merged:
        check_mergeable(decoder)
        with merged_blocks(decoder, merged):
            return _write(decoder, remove, Path(out), figures, healed, written(merged))
    return _write(decoder, remove, Path(out), figures, healed)


def _write(
    decoder: Decoder,
    remove: Sequence[Item],
    out: Path,
    figures: dict[str, Any] | None,
    healed: Mapping[str, Any] | None,
    merged: dict[str, dict[str, int]] | None = None,
) -> Export:
    """Write the model as it is in memory now, merged weights in place; ``export``."""
    blocks = len(decoder.blocks)
    zeroed = lone_halves(remove)
    halves = find_halves(decoder) if zeroed else None
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        return _exported_before(decoder, remove, out, halves, merged)
    gone = set(whole_blocks(remove))
    kept = [block for block in range(blocks) if block not in gone]
    _refuse_unwritable(decoder)
    original = _original(decoder)
    pruned = prune(original, kept)
    config = pruned.config

    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        weight_bytes, zero_bytes, dtype = write_kept_weights(
            decoder,
            kept,
            partial,
            per_block=pruned.per_block,
            whole_checkpoint=type(config) is not type(decoder.config),
            own_names=is_a_part(decoder) and type(config) is type(decoder.config),
            in_memory=merged is not None,
            zeroed=(halves, zeroed) if zeroed else None,
        )
        _write_config(decoder, original, config, kept, dtype, partial)
        write_companions(decoder, partial)
        compared = compare_with_skipping(decoder, remove, partial, halves)
        result = Export(
            path=str(out),
            removed=list(remove),
            kept=kept,
            max_abs_logit_difference=compared.difference,
            parameters=compared.parameters,
            full_parameters=parameter_count(decoder.model),
            weight_bytes=weight_bytes,
            generated_tokens=compared.generated_tokens,
            merged=merged,
            zeroed=asdict(measure_zeroed(decoder, halves, remove, zero_bytes)) if zeroed else None,
            warnings=llama_cpp_warnings(original.config, blocks, kept) or None,
        )
        notes = {
            "base_model": decoder.name,
            "base_model_fingerprint": decoder.source.fingerprint,
            "blocks": blocks,
            **result.to_dict(),
            "figures": figures,
            **(healed or {}),
        }
        write_json(partial / "phaseprune.json", notes)
        if decoder.source.is_checkpoint and not (decoder.trained or merged or zeroed):
            write_text(partial / "mergekit.yaml", mergekit_yaml(decoder.source, kept, dtype))
        write_text(partial / "README.md", model_card(notes))
        if out.exists():
            out.rmdir()
        partial.rename(out)
    except ExportMismatch as error:
        raise ExportMismatch(f"{error}; it was deleted") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return result


def _exported_before(
    decoder: Decoder,
    remove: Sequence[Item],
    out: Path,
    halves: Halves | None,
    merged: dict[str, dict[str, int]] | None,
) -> Export:
    """The export that ``out`` holds, compared again; refused if it holds anything else."""
    try:
        notes = json.loads((out / "phaseprune.json").read_text(encoding="utf-8"))
        wanted = list(remove), decoder.source.fingerprint, merged
        same = (notes["removed"], notes["base_model_fingerprint"], notes.get("merged")) == wanted
        wanted_fields = [f.name for f in fields(Export) if f.default is MISSING or f.name in notes]
        before = Export(**{name: notes[name] for name in wanted_fields})
    except (OSError, ValueError, KeyError):
        same = False
    if not same:
        raise UserError(f"{out} exists already; give another --out, or delete it first")
    compared = compare_with_skipping(decoder, remove, out, halves)
    return replace(before, path=str(out), max_abs_logit_difference=compared.difference)


def _check_named(remove: Sequence[Item], blocks: int) -> None:
    of_halves = any(isinstance(item, str) for item in remove)
    (check_items if of_halves else check_removal)(remove, blocks)


def check_removal(remove: Sequence[int], blocks: int) -> None:
    """Refuse a list of blocks to remove that names one wrongly or twice, or leaves none.

    Raises:
        UserError: says which.
    """
    wrong = [block for block in remove if not 0 <= block < blocks]
    if wrong:
        raise UserError(f"block {wrong[0]} does not exist: the model has blocks 0 to {blocks - 1}")
    if len(set(remove)) < len(remove):
        raise UserError(f"the blocks to remove name one twice: {', '.join(map(str, remove))}")
    if len(remove) >= blocks:
        raise UserError(f"all {blocks} blocks would be removed; at least one must stay")


def check_exportable(decoder: Decoder, deleting: bool = True) -> str | None:
    """Refuse a model that no removal could be exported of, before a search is paid for.

    Args:
        decoder: the model.
        deleting: whether whole blocks may go; else the blocks stay where they are.

    Returns:
        Which removals could not be exported, in words; None where all can.

    Raises:
        UserError: a quantised checkpoint, a model whose blocks are bound to their positions, or a
            budget in which the exported model has no room beside the full one.
    """
    _refuse_unwritable(decoder)
    decoder.placement.refuse_comparing(decoder.name, decoder.dtype, decoder.max_memory)
    if not deleting:
        return None
    some, words = export_limits(_original(decoder))
    if not some:
        raise UserError(f"export of {decoder.name}: {words}")
    return words


def _original(decoder: Decoder) -> Original:
    """The configuration that is pruned, and what it makes."""
    return read_original(_whole_config(decoder), decoder.blocks_path)


def _whole_config(decoder: Decoder) -> Any:
    """The configuration that is pruned: the model's own where that loads alone, else the whole."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    if type(decoder.config) in MODEL_FOR_CAUSAL_LM_MAPPING or runs_own_code(decoder):
        return decoder.config
    config = read_config(decoder.source)
    if has_own_head(decoder):
        state_own_head(config)
    return config


def model_pattern(decoder: Decoder) -> Pattern | None:
    """The pattern that the blocks follow by their kinds; None where there is none."""
    return find_pattern(_whole_config(decoder), len(decoder.blocks))


def taken_by_position(decoder: Decoder) -> str | None:
    """What llama.cpp takes otherwise of some exports of the model, a sentence; None of most."""
    return position_words(_whole_config(decoder), len(decoder.blocks))


def warnings_beforehand(
    name: str, remove: Sequence[Item], revision: str | None = None, trust_remote_code: bool = False
) -> list[str]:
    """The ``warnings`` that an export will have, from the configuration alone.

    Args:
        name: of the model, as of ``load_model``.
        remove: blocks, or halves of blocks.
        revision: of a hub model.
        trust_remote_code: as of ``load_model``.

    Raises:
        UserError: there is no such model, or no such block.
    """
    config = read_config(find_source(name, revision, weights=False), trust_remote_code)
    blocks = count_blocks(config)
    _check_named(remove, blocks)
    gone = set(whole_blocks(remove))
    return llama_cpp_warnings(config, blocks, [b for b in range(blocks) if b not in gone])


def is_a_part(decoder: Decoder) -> bool:
    """Whether the loaded model is only the text part of what the checkpoint holds."""
    if not decoder.source.is_checkpoint:
        return False
    return _stated(decoder).get("model_type") != decoder.config.model_type


def _stated(decoder: Decoder) -> dict[str, Any]:
    """What the source's ``config.json`` says."""
    return read_json_object(decoder.source.directory / "config.json")


def _write_config(
    decoder: Decoder, original: Original, config, kept: Sequence[int], dtype: torch.dtype, out: Path
) -> None:
    stated, code = None, {}
    if decoder.source.is_checkpoint:
        stated = _stated(decoder)
        on_hub = decoder.source.name if decoder.source.on_hub else None
        code = own_code(stated, decoder.source.directory, on_hub)
        if is_a_part(decoder) and type(config) is type(decoder.config):
            stated = text_part(stated, config.model_type)
    edited = edited_config(
        stated,
        original,
        config,
        kept,
        architecture=type(decoder.model).__name__,
        dtype=str(dtype).removeprefix("torch."),
    )
    edited.pop("auto_map", None)
    write_text(out / "config.json", json.dumps(edited | code, indent=2, ensure_ascii=False) + "\n")


def _refuse_unwritable(decoder: Decoder) -> None:
    """Refuse a checkpoint that no plain one can be made of: quantised, or without its own code."""
    if runs_own_code(decoder) and not decoder.source.is_checkpoint:
        raise UserError(
            f"{decoder.name}: the model runs code of its own, whose files a model in memory does "
            "not bring; save it with save_pretrained and load that directory"
        )
    text = decoder.config.get_text_config(decoder=True)
    quantised = any(getattr(c, "quantization_config", None) for c in (decoder.config, text))
    if quantised and not decoder.source.gguf_file:
        raise UserError(
            f"{decoder.name}: a quantised checkpoint cannot be exported as a plain one; prune the "
            "unquantised model and quantise the export"
        )
