"""Exporting a pruned model as a plain Hugging Face checkpoint, proved by reloading it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from phaseprune.decoder.blocks import skipped_blocks
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.export_notes import mergekit_yaml, model_card
from phaseprune.decoder.pruned_config import pruned_config
from phaseprune.decoder.pruned_weights import write_kept_weights
from phaseprune.decoder.reload_streamed import new_tokens, refuse_comparing, reload
from phaseprune.decoder.verify import TOLERANCE
from phaseprune.errors import UserError
from phaseprune.runs.atomic import write_json, write_text

NEW_TOKENS = 8
PROBE_ROWS, PROBE_TOKENS = 2, 24


class ExportMismatch(RuntimeError):
    """A checkpoint on disk is not the model that was measured."""


@dataclass(frozen=True)
class Export:
    """An exported checkpoint.

    Attributes:
        path: its directory.
        removed: original indices, in order of removal.
        kept: original indices, in order.
        max_abs_logit_difference: between the checkpoint reloaded from disk and the full model that
            skips the removed blocks.
        parameters: of the exported model, and ``full_parameters`` of the full one.
        weight_bytes: of the tensors on disk.
        generated_tokens: how many tokens were generated alike with and without the KV cache.
    """

    path: str
    removed: list[int]
    kept: list[int]
    max_abs_logit_difference: float
    parameters: int
    full_parameters: int
    weight_bytes: int
    generated_tokens: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def export(
    decoder: Decoder,
    remove: Sequence[int],
    out: str | Path,
    *,
    figures: dict[str, Any] | None = None,
) -> Export:
    """Write the model without some blocks, reload it from disk, and compare.

    Args:
        decoder: the loaded full model.
        remove: original indices of the blocks to remove.
        out: directory of the checkpoint. Must not exist, or be empty, or hold this very export,
            which is then only held against the model again.
        figures: measured figures for the model card and ``phaseprune.json``.

    Returns:
        What was written and how closely it matches.

    Raises:
        UserError: blocks out of range, ``out`` in use, or a model that cannot be exported.
        ExportMismatch: the reloaded checkpoint differs; it has been deleted.
    """
    blocks = len(decoder.blocks)
    _check_removal(remove, blocks)
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        return _exported_before(decoder, remove, out)
    kept = [block for block in range(blocks) if block not in set(remove)]
    check_exportable(decoder)
    config = pruned_config(decoder.config, kept)

    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        weight_bytes, config.dtype = write_kept_weights(decoder, kept, partial)
        config.save_pretrained(partial)
        decoder.tokenizer.save_pretrained(partial)
        if decoder.model.generation_config is not None:
            _save_generation_config(decoder, partial)
        difference, parameters = compare_with_skipping(decoder, remove, partial)
        result = Export(
            path=str(out),
            removed=list(remove),
            kept=kept,
            max_abs_logit_difference=difference,
            parameters=parameters,
            full_parameters=sum(p.numel() for p in decoder.model.parameters()),
            weight_bytes=weight_bytes,
            generated_tokens=new_tokens(decoder, NEW_TOKENS),
        )
        notes = {
            "base_model": decoder.name,
            "base_model_fingerprint": decoder.source.fingerprint,
            "blocks": blocks,
            **result.to_dict(),
            "figures": figures,
        }
        write_json(partial / "phaseprune.json", notes)
        write_text(partial / "mergekit.yaml", mergekit_yaml(decoder.name, kept, config.dtype))
        write_text(partial / "README.md", model_card(notes))
        if out.exists():
            out.rmdir()
        partial.rename(out)
    except ExportMismatch as error:
        raise ExportMismatch(f"{error}; it was deleted") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return result


@torch.no_grad()
def compare_with_skipping(
    decoder: Decoder, removed: Sequence[int], checkpoint: Path
) -> tuple[float, int]:
    """Reload a checkpoint and hold it against the full model that skips the blocks.

    Returns:
        The largest absolute difference of the logits on random tokens, and the parameters.

    Raises:
        ExportMismatch: logits differ, weights are missing, or generation with the KV cache differs
            from generation without.
    """
    model, report = reload(decoder, checkpoint)
    missing = sorted(report["missing_keys"])
    if missing:
        raise ExportMismatch(
            f"the exported checkpoint lacks {len(missing)} weights ({missing[0]})"
        )
    generator = torch.Generator().manual_seed(0)
    vocabulary = decoder.model.get_input_embeddings().weight.shape[0]
    length = min(PROBE_TOKENS, (decoder.max_length or PROBE_TOKENS + NEW_TOKENS) - NEW_TOKENS)
    shape = (PROBE_ROWS, max(1, length))
    tokens = torch.randint(vocabulary, shape, generator=generator).to(decoder.device)
    with skipped_blocks(decoder, set(removed)):
        expected = decoder.model(input_ids=tokens, use_cache=False).logits.float()
    difference = float((model(input_ids=tokens).logits.float() - expected).abs().max())
    tolerance = TOLERANCE[decoder.dtype] * max(1.0, float(expected.abs().max()))
    if not difference <= tolerance:
        raise ExportMismatch(
            "the exported checkpoint is not the model that was measured (max |difference of "
            f"logits| {difference:.3g}, allowed {tolerance:.3g})"
        )
    _check_generation(model, tokens, tolerance, new_tokens(decoder, NEW_TOKENS))
    return difference, sum(p.numel() for p in model.parameters())


def _exported_before(decoder: Decoder, remove: Sequence[int], out: Path) -> Export:
    """The export that ``out`` holds, compared again; refused if it holds anything else."""
    try:
        notes = json.loads((out / "phaseprune.json").read_text(encoding="utf-8"))
        wanted = list(remove), decoder.source.fingerprint
        same = (notes["removed"], notes["base_model_fingerprint"]) == wanted
        before = Export(**{field.name: notes[field.name] for field in fields(Export)})
    except (OSError, ValueError, KeyError):
        same = False
    if not same:
        raise UserError(f"{out} exists already; give another --out, or delete it first")
    difference, _ = compare_with_skipping(decoder, remove, out)
    return replace(before, path=str(out), max_abs_logit_difference=difference)


def _check_generation(model, tokens: torch.Tensor, tolerance: float, count: int) -> None:
    """Each greedily generated token (KV cache on) must be a best token of the uncached logits."""
    from transformers import GenerationConfig

    settings = GenerationConfig(
        do_sample=False, max_new_tokens=count, min_new_tokens=count, pad_token_id=0
    )
    mask = torch.ones_like(tokens)
    generated = model.generate(tokens, attention_mask=mask, generation_config=settings)
    logits = model(input_ids=generated, use_cache=False).logits.float()
    new = generated[:, tokens.shape[1] :]
    said = logits[:, tokens.shape[1] - 1 : -1]
    stop = model.generation_config.eos_token_id
    for token in [stop] if isinstance(stop, int) else stop or []:
        said[..., token : token + 1] = -torch.inf  # min_new_tokens forbids it
    gap = said.max(dim=-1).values - said.gather(-1, new[..., None])[..., 0]
    if float(gap.max()) > 2 * tolerance:
        raise ExportMismatch(
            "the exported checkpoint generates differently with and without the KV cache "
            f"(a generated token is {float(gap.max()):.3g} below the best)"
        )


def _check_removal(remove: Sequence[int], blocks: int) -> None:
    wrong = [block for block in remove if not 0 <= block < blocks]
    if wrong:
        raise UserError(
            f"block {wrong[0]} does not exist: the model has blocks 0 to {blocks - 1}"
        )
    if len(set(remove)) < len(remove):
        raise UserError(f"the blocks to remove name one twice: {', '.join(map(str, remove))}")
    if len(remove) >= blocks:
        raise UserError(f"all {blocks} blocks would be removed; at least one must stay")


def check_exportable(decoder: Decoder) -> None:
    """Refuse a model that no removal could be exported of, before a search is paid for.

    Raises:
        UserError: a quantised checkpoint, a configuration field that counts blocks by position, or
            a budget in which the exported model has no room beside the full one.
    """
    refuse_comparing(decoder)
    pruned_config(decoder.config, range(len(decoder.blocks) - 1))
    quantised = getattr(decoder.config, "quantization_config", None)
    if quantised is not None and not decoder.source.gguf_file:
        raise UserError(
            f"{decoder.name}: a quantised checkpoint cannot be exported as a plain one; prune the "
            "unquantised model and quantise the export"
        )


def _save_generation_config(decoder: Decoder, out: Path) -> None:
    """Save the generation settings as they are, also where transformers finds them odd."""
    write_json(out / "generation_config.json", decoder.model.generation_config.to_diff_dict())
