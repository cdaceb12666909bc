"""What reading at every readout costs: a trace against a plain forward of the same packed rows.

    python benchmarks/trace.py [--questions 64] [--repeats 5]

SmolLM2-135M-Instruct, MMLU letters with five examples and ARC-Easy texts. Both are walks over the
same rows, turn by turn in one process; the plain one reads the output alone.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from engine import DATA, bundled_weights, eight_subjects
from phaseprune import load_model, load_task
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.walk import trace_scores


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    decoder = load_model(bundled_weights())
    print(f"{torch.get_num_threads()} threads")
    texts = load_task(str(DATA / "arc_easy.test.jsonl"), scoring="text", limit=options.questions)
    for name, task in {
        "mmlu letters": eight_subjects(options.questions),
        "arc_easy texts": texts,
    }.items():
        prepared = prepare(decoder, task, streams=1)
        times = np.array(
            [
                [seconds(decoder, prepared, output_only) for output_only in (True, False)]
                for _ in range(options.repeats + 1)
            ]
        )[1:]
        ratios = times[:, 1] / times[:, 0]
        plain, traced = np.median(times, axis=0)
        print(
            f"{name}: forward {plain:.2f} s, trace {traced:.2f} s; ratio {np.median(ratios):.3f} "
            f"({ratios.min():.3f} to {ratios.max():.3f})",
            flush=True,
        )


def seconds(decoder, prepared, output_only: bool) -> float:
    began = time.perf_counter()
    trace_scores(decoder, prepared.rows, prepared.needs_vocabulary, output_only=output_only)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
