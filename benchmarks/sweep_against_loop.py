"""The sweep against the loop that everyone runs: the whole model for each candidate.

    python benchmarks/sweep_against_loop.py [MODEL] [TASK] [--scoring text] [--questions 8]

The loop is written as the peers write theirs: for each candidate the block is skipped and the whole
model runs padded rows in batches, one row a question for letters and one for each (question,
option) for texts, logits of the whole vocabulary at all positions. It is timed on a sample of
candidates spread over the blocks, and scaled. One process, same data, dtype and threads.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from phaseprune import load_model, load_task
from phaseprune.decoder.blocks import skipped_blocks
from phaseprune.questions.encode import encode_task
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.walk import sweep_scores


@torch.no_grad()
def loop_candidate(decoder, questions, block: int, scoring: str, batch: int = 16) -> list[float]:
    """Scores of all (question, option) pairs without one block, the peers' way."""
    if scoring == "letter":  # one row, all labels read off its last position
        rows = [(q.context, q.continuations) for q in questions]
    else:
        rows = [(q.context + c[:-1], (c,)) for q in questions for c in q.continuations]
    scores = []
    with skipped_blocks(decoder, {block}):
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            width = max(len(tokens) for tokens, _ in part)
            ids = torch.tensor([list(tokens) + [0] * (width - len(tokens)) for tokens, _ in part])
            logits = decoder.model(input_ids=ids, use_cache=False).logits
            log_p = logits.float().log_softmax(-1) if scoring == "text" else logits
            for row, (tokens, endings) in enumerate(part):
                for ending in endings:
                    places = range(len(tokens) - len(ending), len(tokens))
                    scores.append(
                        sum(float(log_p[row, p, t]) for p, t in zip(places, ending, strict=True))
                    )
    return scores


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", default="demo")
    parser.add_argument("task", nargs="?", default="demo")
    parser.add_argument("--scoring", default=None)
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--sample", type=int, default=4, help="candidates the loop is timed on")
    options = parser.parse_args()
    decoder = load_model(options.model)
    task = load_task(options.task, scoring=options.scoring, limit=options.questions)
    prepared, questions = prepare(decoder, task), encode_task(task, decoder.tokenizer)
    blocks = len(decoder.blocks)
    present = ~prepared.rows.absent

    began = time.perf_counter()
    sweep = sweep_scores(decoder, prepared.rows, prepared.needs_vocabulary, range(blocks))
    fast = time.perf_counter() - began
    sample = sorted(set(np.linspace(0, blocks - 1, options.sample).round().astype(int).tolist()))
    began, worst = time.perf_counter(), 0.0
    for block in sample:
        scores = np.array(loop_candidate(decoder, questions, block, task.scoring))
        worst = max(worst, float(np.abs(scores - sweep.scores[block][present]).max()))
    slow = (time.perf_counter() - began) / len(sample) * blocks
    print(f"{options.model}, {options.task}, {task.scoring}: {len(task.questions)} questions, "
          f"{blocks} blocks, {decoder.dtype}, {torch.get_num_threads()} threads")  # fmt: skip
    print(f"sweep: {fast:.1f} s, {sweep.block_passes} block passes, {prepared.rows.tokens} tokens "
          f"in {prepared.rows.rows} rows")  # fmt: skip
    print(f"loop: {slow:.1f} s (timed on candidates {sample}, scaled to {blocks}), "
          f"{blocks * (blocks - 1)} block passes")  # fmt: skip
    print(f"ratio {slow / fast:.2f}, max |difference of scores| {worst:.1e}")


if __name__ == "__main__":
    main()
