"""How the time of one exact pruning step grows: with blocks, questions, and their length.

    python benchmarks/growth.py [--width 64]

Random Llamas and random questions of four options, texts, float32. Prints the seconds (the better
of two runs) and the exponents fitted through their logarithms.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from phaseprune import load_model
from phaseprune.questions.encode import EncodedQuestion
from phaseprune.sweep.memory import batch_tokens
from phaseprune.sweep.probe import packed_length
from phaseprune.sweep.rows import make_rows
from phaseprune.sweep.walk import sweep_scores

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
BLOCKS, QUESTIONS, LENGTH = 16, 64, 64


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=64)
    width = parser.parse_args().width
    with tempfile.TemporaryDirectory() as folder:
        models = {n: random_model(Path(folder) / str(n), n, width) for n in (8, 16, 32)}
    series = {
        "blocks": {n: seconds(model, QUESTIONS, LENGTH) for n, model in models.items()},
        "questions": {q: seconds(models[BLOCKS], q, LENGTH) for q in (32, 64, 128, 256)},
        "question length": {t: seconds(models[BLOCKS], QUESTIONS, t) for t in (32, 64, 128, 256)},
    }
    for name, times in series.items():
        sizes = np.log(list(times)), np.log(list(times.values()))
        exponent = np.polyfit(*sizes, 1)[0]
        shown = ", ".join(f"{size}: {t:.2f} s" for size, t in times.items())
        print(f"{name}: {shown}; exponent {exponent:.2f}", flush=True)


def random_model(folder: Path, blocks: int, width: int):
    from conftest import make_tokenizer

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=blocks,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 32,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return load_model(str(folder))


def seconds(decoder, count: int, length: int) -> float:
    draw = np.random.default_rng(0)
    questions = [
        EncodedQuestion(
            tuple(draw.integers(0, 2048, length).tolist()),
            tuple(tuple(draw.integers(0, 2048, 4).tolist()) for _ in range(4)),
            (1,) * 4,
        )
        for _ in range(count)
    ]
    together = batch_tokens(decoder)
    rows = make_rows(questions, together, packed_length=packed_length(decoder))
    times = []
    for _ in range(2):
        began = time.perf_counter()
        sweep_scores(decoder, rows, True, range(len(decoder.blocks)))
        times.append(time.perf_counter() - began)
    return min(times)


if __name__ == "__main__":
    main()
