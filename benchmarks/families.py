"""Every causal language model of the installed transformers, tiny, through the whole job.

    python benchmarks/families.py [FAMILY ...] [--write] [--processes 2] [--limit-s 120]

Each family in a process of its own with a time limit: discovery, readout check, trace, sweep
against skipping by hooks, export of several removals, reload by transformers, logits, generation
with and without the cache. Prints a line a family and the sums; ``--write`` puts the table into
``benchmarks/FAMILIES.md``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))
REMOVALS = ([0], [5], [1, 3, 5], [0, 2, 4], [0, 1, 2, 3, 4], [2, 3])
PARTS = ("load", "trace", "sweep", "export")
MARKS = {"works": "✓", "partly": "(✓)", "–": "–"}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("families", nargs="*")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--limit-s", type=float, default=120)
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    families = options.families or causal_families()
    results = {}
    for family, found, seconds in run_all(families, options.processes, options.limit_s):
        results[family] = found
        print(f"{family:<26}{verdict(found):<10}{seconds:5.0f} s  {reason(found)}", flush=True)
    counts = Counter(verdict(found) for found in results.values())
    print(", ".join(f"{name} {count}" for name, count in counts.most_common()))
    if options.write:
        (HERE / "FAMILIES.md").write_text(table(results), encoding="utf-8")
    if counts["failed"]:
        raise SystemExit(1)


def causal_families() -> list[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

    return sorted(NAMES)


def run_all(families, processes: int, limit: float):
    """Results as they come; a process that runs past the limit is ended and counts as failed."""
    import torch
    import transformers  # noqa: F401 - loaded once, then forked

    import families as tested  # noqa: F401

    torch.set_num_threads(1)
    context = multiprocessing.get_context("fork")
    waiting, running = list(families), {}
    while waiting or running:
        while waiting and len(running) < processes:
            family = waiting.pop(0)
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=one, args=(family, theirs))
            process.start()
            theirs.close()
            running[family] = (process, ours, time.monotonic())
        for family, (process, pipe, began) in list(running.items()):
            seconds = time.monotonic() - began
            found = None
            if pipe.poll(0.02):
                try:
                    found = pipe.recv()
                except EOFError:
                    process.join()
                    found = {"load": f"failed: the process ended with code {process.exitcode}"}
            elif seconds > limit:
                process.kill()
                found = {"load": f"failed: not done after {limit:.0f} s"}
            if found is not None:
                process.join()
                del running[family]
                yield family, found, seconds


def one(family: str, pipe) -> None:
    """In a process of its own: the whole job of one family."""
    import logging
    import warnings

    import families as tested

    warnings.filterwarnings("ignore")
    logging.disable(logging.ERROR)
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 2)
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = tested.whole_job(family, Path(folder), REMOVALS)
        except Exception as error:  # noqa: BLE001
            found = {"load": f"failed: {type(error).__name__}: {error}"}
    pipe.send(found)
    pipe.close()


def verdict(found: dict[str, str]) -> str:
    if all(found.get(part) == "works" for part in PARTS):
        return "works"
    for word in ("failed", "unusable", "refused"):
        if any(text.startswith(word) for text in found.values()):
            return word
    return "partly"


def reason(found: dict[str, str]) -> str:
    """The part that does not work, and why."""
    return "; ".join(f"{part}: {text}" for part, text in found.items() if text != "works")


def table(results: dict[str, dict[str, str]]) -> str:
    import transformers

    counts = Counter(verdict(found) for found in results.values())
    lines = [
        "# Families",
        "",
        f"By `python benchmarks/families.py --write`, transformers {transformers.__version__}: "
        f"{len(results)} families, "
        + ", ".join(f"{count} {name}" for name, count in counts.most_common())
        + ".",
        "",
        "| family | load | trace | sweep | export | |",
        "|---|---|---|---|---|---|",
    ]
    for family, found in sorted(results.items()):
        marks = [MARKS.get(found.get(part, "–").split(":")[0], "✗") for part in PARTS]
        lines.append(f"| {family} | {' | '.join(marks)} | {reason(found).replace('|', '/')} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
