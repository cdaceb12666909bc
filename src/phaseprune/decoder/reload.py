"""Holding a checkpoint on disk against the full model that skips the removed blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.items import Item, whole_blocks
from phaseprune.decoder.load import first_line
from phaseprune.decoder.placement import Report, parameter_count
from phaseprune.decoder.sublayers import Halves, skipped_items
from phaseprune.decoder.verify import TOLERANCE
from phaseprune.errors import UserError

NEW_TOKENS = 8
PROBE_ROWS, PROBE_TOKENS = 2, 24
#: What transformers raises where a family's cache cannot do it.
GENERATION_ERRORS = (ValueError, IndexError, RuntimeError, AttributeError, TypeError)


class ExportMismatch(RuntimeError):
    """A checkpoint on disk is not the model that was measured."""


@dataclass(frozen=True)
class Comparison:
    """A checkpoint held against the full model that skips the blocks.

    Attributes:
        difference: the largest absolute one of the logits on random tokens.
        parameters: of the checkpoint's model.
        generated_tokens: see ``Export``.
    """

    difference: float
    parameters: int
    generated_tokens: int


@torch.no_grad()
def compare_with_skipping(
    decoder: Decoder, removed: Sequence[Item], checkpoint: Path, halves: Halves | None = None
) -> Comparison:
    """Reload a checkpoint and hold it against the full model that skips the blocks.

    Args:
        decoder: the full model.
        removed: blocks, or halves of them.
        checkpoint: the directory.
        halves: from ``find_halves``, where halves are removed.

    Raises:
        UserError: the pruned model is right but cannot generate with the KV cache.
        ExportMismatch: logits differ, weights are missing, or generation with the KV cache differs
            from generation without.
    """
    gone = set(whole_blocks(removed))
    kept = [block for block in range(len(decoder.blocks)) if block not in gone]
    model, report = reload(decoder, kept, checkpoint)
    missing = sorted(report["missing_keys"])
    if missing:
        raise ExportMismatch(f"the exported checkpoint lacks {len(missing)} weights ({missing[0]})")
    generator = torch.Generator().manual_seed(0)
    vocabulary = decoder.model.get_input_embeddings().weight.shape[0]
    length = min(PROBE_TOKENS, (decoder.max_length or PROBE_TOKENS + NEW_TOKENS) - NEW_TOKENS)
    shape = (PROBE_ROWS, max(1, length))
    tokens = torch.randint(vocabulary, shape, generator=generator).to(decoder.device)
    padding = getattr(decoder.config, "pad_token_id", None)  # some models count positions by it
    tokens[tokens == (-1 if padding is None else padding)] = 1 if padding == 0 else 0
    with skipped_items(decoder, halves, removed):
        expected = decoder.model(input_ids=tokens, use_cache=False).logits.float()
    difference = float(
        (model(input_ids=tokens, use_cache=False).logits.float() - expected).abs().max()
    )
    tolerance = TOLERANCE[decoder.dtype] * max(1.0, float(expected.abs().max()))
    if not difference <= tolerance:
        raise ExportMismatch(
            "the exported checkpoint is not the model that was measured (max |difference of "
            f"logits| {difference:.3g}, allowed {tolerance:.3g})"
        )
    return Comparison(
        difference,
        parameter_count(model),
        _check_generation(decoder, model, tokens, tolerance),
    )


def reload(
    decoder: Decoder, kept: Sequence[int], checkpoint: Path
) -> tuple[torch.nn.Module, Report]:
    """The model that a checkpoint holds, placed as the full model is, and the report on loading it.

    Args:
        decoder: the full model.
        kept: original indices of the blocks that the checkpoint has.
        checkpoint: the directory.
    """
    return decoder.placement.reload(
        checkpoint, kept, decoder.dtype, runs_own_code(decoder), decoder.max_memory
    )


def runs_own_code(decoder: Decoder) -> bool:
    """Whether the user let the checkpoint's own code run."""
    return type(decoder.config).__module__.startswith("transformers_modules")


def _check_generation(decoder: Decoder, model, tokens: torch.Tensor, tolerance: float) -> int:
    """How many tokens were generated alike with and without the KV cache.

    0 where the full model cannot generate with the cache either, or differs likewise.
    """
    count = decoder.placement.new_tokens(NEW_TOKENS)
    try:
        below_best, _ = _cache_differences(model, tokens, count)
    except torch.OutOfMemoryError:
        raise
    except GENERATION_ERRORS as error:
        if _full_model_generates(decoder, tokens, tolerance):
            raise UserError(
                "without these blocks the model cannot generate with the KV cache "
                f"({first_line(error)}); keep a block of each kind that it has"
            ) from None
        return 0
    if below_best <= 2 * tolerance:
        return count
    if _full_model_generates(decoder, tokens, tolerance):
        raise ExportMismatch(
            "the exported checkpoint generates differently with and without the KV cache "
            f"(a generated token is {below_best:.3g} below the best)"
        )
    return 0


def _full_model_generates(decoder: Decoder, tokens: torch.Tensor, tolerance: float) -> bool:
    """Whether the full model's cache is exact, told by all logits and not the best ones alone."""
    try:
        count = decoder.placement.new_tokens(NEW_TOKENS)
        return _cache_differences(decoder.model, tokens, count)[1] <= 2 * tolerance
    except torch.OutOfMemoryError:
        raise
    except GENERATION_ERRORS:
        return False


def _cache_differences(model, tokens: torch.Tensor, count: int) -> tuple[float, float]:
    """Generate so many tokens greedily with the KV cache, and hold that against uncached logits.

    Returns:
        How far a generated token is below the best one, and the largest difference of the logits.
    """
    from transformers import GenerationConfig

    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=count,
        min_new_tokens=count,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    mask = torch.ones_like(tokens)
    generated = model.generate(tokens, attention_mask=mask, generation_config=settings)
    logits = model(input_ids=generated.sequences, use_cache=False).logits.float()
    new = generated.sequences[:, tokens.shape[1] :]
    said = logits[:, tokens.shape[1] - 1 : -1]
    difference = float((torch.stack(generated.logits, dim=1).float() - said).abs().max())
    stop = model.generation_config.eos_token_id
    for token in [stop] if isinstance(stop, int) else stop or []:
        said[..., token : token + 1] = -torch.inf  # min_new_tokens forbids it
    below_best = said.max(dim=-1).values - said.gather(-1, new[..., None])[..., 0]
    if model.generation_config.forced_eos_token_id is not None:
        below_best = below_best[:, :-1]  # the last token is no choice of the model's
    return float(below_best.max()), difference
