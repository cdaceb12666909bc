"""What ``phaseprune check`` says of a model, in words and in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phaseprune.decoder.budget import LOGIT_BYTES


def family(seen) -> str:
    """Family and size; ``seen`` is a ``decoder.preflight.Preflight`` here and below."""
    return f"{seen.family}, {seen.parameters / 1e6:,.1f}M parameters"


def blocks(seen) -> str:
    """How many, where, and the norm behind them."""
    norm = f"final norm at {seen.norm_path}" if seen.norm_path else "no final norm"
    return f"{seen.blocks} at {seen.blocks_path}, {norm}"


def head(seen) -> str:
    """Whether the head has weights of its own."""
    if seen.tied:
        return "tied to the embeddings"
    odd = ", though config.json says tied (tie_word_embeddings)" if seen.tied_stated else ""
    return f"its own weights{odd}"


def size(seen) -> str:
    """Bytes stored: all and by block."""
    small, large = min(seen.block_bytes), max(seen.block_bytes)
    each = data(small) if small == large else f"{data(small)} to {data(large)}"
    whole = "size on disk not known yet" if seen.disk_bytes is None else data(seen.disk_bytes)
    stored = seen.quantisation.method if seen.quantisation else seen.dtype
    return f"{whole}, {stored}, {each} a block"


def weights(names) -> str:
    """How far the model's weights were found in the checkpoint (``decoder.names.Names``)."""
    text = {
        "names and shapes": "all there, by the names and shapes in the files' headers",
        "names": "all there, by the names in the index (--full checks their shapes)",
        "modules": "every module has some (quantised, so --full checks the rest)",
        "blocks": "every block has some (GGUF names them otherwise; --full checks the rest)",
        "nothing": "not known before they are downloaded; --full does and checks them",
    }[names.checked]
    if names.unsure:
        text = (
            f"{len(names.unsure)} have names that are converted on loading, the first "
            f"{names.unsure[0]}; --full checks them; all others are there"
        )
    if names.unused:
        text += f"; {len(names.unused)} stored ones are not used, the first {names.unused[0]}"
    return text


def inputs(seen) -> str:
    """What is done to a text's tokens before they are run."""
    told = f"; {seen.beginning}" if seen.beginning else ""
    return f"cut on the left to {seen.max_length:,} tokens, as lm-eval cuts them{told}"


def pipeline(found) -> str:
    """What real prompts showed (``decoder.own_pipeline.Pipeline``)."""
    if found.remarks:
        return "; ".join(found.remarks)
    begins = f"beginning with {found.begins_with}" if found.begins_with else "with no BOS"
    logits = (
        "" if found.difference is None else f", and logits, max |difference| {found.difference:.2g}"
    )
    return f"{found.prompts} real prompts give plain transformers' tokens ({begins}){logits}"


def quantisation(quantised) -> str:
    """The method and whether it can be loaded here (``decoder.preflight.Quantisation``)."""
    if quantised.problem is not None:
        return f"{quantised.method}, which cannot be loaded here: {quantised.problem}"
    if quantised.dequantised:
        return f"{quantised.method}, de-quantised on loading"
    return f"{quantised.method}, and what loads it is installed; trace runs it as it is"


def memory(seen, dtype, device: str, batches: int) -> str:
    """What a run needs, with ``dtype`` as the weights' (None: as stored)."""
    in_dtype = str(dtype).removeprefix("torch.") if dtype else "their own dtype"
    packed = seen.quantisation is not None and not seen.quantisation.dequantised
    held = "quantised" if packed else f"in {in_dtype}"
    return (
        f"about {data(seen.weight_bytes(dtype))} for the weights {held} on {device}, and about "
        f"{data(batches)} more for batches"
    )


def streaming(seen, dtype, stream: bool | None, budget: int | None) -> tuple[bool, str] | None:
    """Whether the weights would be streamed and have room, and that in words.

    Args:
        seen: as above.
        dtype: the weights' (None: as stored).
        stream: ``--stream`` or ``--no-stream``; None for neither.
        budget: ``--max-memory`` in bytes; None without.

    Returns:
        None where nothing was asked.
    """
    if stream is None and budget is None:
        return None
    whole = seen.weight_bytes(dtype)
    fits = budget is None or whole <= budget
    if stream is False or (stream is None and fits):
        do = "" if fits else "do not "
        return fits, f"no; all weights would be in memory, and {do}fit into what a run may take"
    if seen.quantisation is not None or not seen.disk_bytes:
        return False, "not of quantised weights, nor before they are downloaded; use --no-stream"
    outside = max(0, seen.disk_bytes - sum(seen.block_bytes))
    held = int(whole / seen.disk_bytes * (outside + 2 * max(seen.block_bytes)))
    text = f"about {data(held)} of the weights in memory at a time (two blocks, and all outside)"
    if budget is not None and held + LOGIT_BYTES > budget:
        return False, f"{text} leave no room to work in within --max-memory {data(budget)}"
    return True, text


def exportable(seen) -> str:
    """What can be exported."""
    plain = "as a plain checkpoint with fewer blocks"
    return f"{plain}; {seen.export_limits}" if seen.export_limits else plain


def numbers(seen) -> dict[str, Any]:
    """The same as plain JSON values."""
    quantised = seen.quantisation
    return {
        "family": seen.family,
        "blocks": seen.blocks,
        "blocks_path": seen.blocks_path,
        "norm_path": seen.norm_path,
        "tied": seen.tied,
        "tied_stated": seen.tied_stated,
        "parameters": seen.parameters,
        "stored_dtype": seen.dtype,
        "disk_bytes": seen.disk_bytes,
        "block_bytes": list(seen.block_bytes),
        "max_length": seen.max_length,
        "texts_begin": seen.beginning,
        "weights_checked": seen.names.checked,
        "weights_converted": len(seen.names.unsure),
        "weights_unused": len(seen.names.unused),
        "quantisation": quantised and quantised.method,
        "exportable": seen.export_problem is None,
        "export_limits": seen.export_limits,
    }


def data(count: int) -> str:
    """Bytes in words: ``16.1 GB``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} bytes"


def paper_line(rows: Sequence[Mapping[str, Any]]) -> str:
    """What all experiments take together.

    Args:
        rows: ``paper.cost.Experiment`` as JSON values, with ``seconds`` (None where unknown).
    """
    text = f"up to about {flop(sum(row['flop'] for row in rows))}"
    if rows[0]["seconds"] is not None:
        text += f" and {duration(sum(row['seconds'] for row in rows))}"
    return f"{text} with its default settings:"


def experiment_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line an experiment, of less than 80 columns; ``rows`` as above."""
    return [
        f"{row['name']:<10} {'' if row['kind'] == 'exact' else row['kind']:>7} "
        f"{row['block_passes']:>9,} block passes {flop(row['flop']):>12}"
        + ("" if row["seconds"] is None else f" {duration(row['seconds']):>9}")
        for row in rows
    ]


def flop(count: float) -> str:
    """Operations in words: ``1.2 PFLOP``."""
    for unit, scale in (("EFLOP", 1e18), ("PFLOP", 1e15), ("TFLOP", 1e12)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count / 1e12:.2g} TFLOP"


def duration(seconds: float) -> str:
    """Seconds in words: ``12 min``."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
