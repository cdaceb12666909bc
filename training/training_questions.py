"""Writes the bundled training questions: `python training/training_questions.py`.

They are drawn by the generator that the model was trained with, so none of them is held out: no
question of `questions.jsonl` is among them, in any order of its options. `phaseprune heal demo-run`
fine-tunes pruned models on them.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from world import KINDS, Question, World

HERE = Path(__file__).resolve().parent
PER_KIND = 1_000


def training_questions(world: World, seed: int, per_kind: int = PER_KIND) -> list[Question]:
    """Returns distinct training questions, as many of each kind, in random order."""
    rng = random.Random(f"training-questions-{seed}")
    questions = []
    for kind in KINDS:
        seen = set()
        for question in world.training(rng, {kind: 1.0}):
            key = (question.question, frozenset(question.choices))
            if key not in seen:
                seen.add(key)
                questions.append(question)
            if len(seen) == per_kind:
                break
    rng.shuffle(questions)
    return questions


def write(questions: list[Question], path: Path) -> None:
    """Writes them in the columns that phaseprune reads."""
    table = pa.table(
        {
            "id": [f"training-{number:04d}" for number in range(len(questions))],
            "question": [q.question for q in questions],
            "choices": [list(q.choices) for q in questions],
            "answer": pa.array([q.answer for q in questions], pa.int8()),
            "kind": [q.kind for q in questions],
        }
    )
    pq.write_table(table, path, compression="zstd", compression_level=19)


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=HERE.parent / "src/phaseprune/demo/training.parquet"
    )
    options = parser.parse_args()
    write(training_questions(World(options.seed), options.seed), options.out)


if __name__ == "__main__":
    main()
