"""Copies of data sets in the hub's layout, from plain files of questions, for machines offline.

    python benchmarks/hub_copies.py DIR [--data ../shared/data]

writes DIR/OWNER/NAME/… for ARC-Easy, PIQA and HellaSwag, to be given with `--data-dir DIR`. The
questions are other people's: keep DIR outside of the repository.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from phaseprune.questions.benchmarks import BENCHMARKS


def arc(row: dict) -> dict:
    """ARC's columns."""
    labels = list("ABCDE")[: len(row["choices"])]
    return {
        "id": row["id"],
        "question": row["question"],
        "choices": {"text": row["choices"], "label": labels},
        "answerKey": labels[row["answer"]],
    }


def piqa(row: dict) -> dict:
    """PIQA's columns."""
    first, second = row["choices"]
    return {"goal": row["question"], "sol1": first, "sol2": second, "label": row["answer"]}


def hellaswag(row: dict) -> dict:
    """HellaSwag's columns. The plain files hold `activity: context`; no second part is told."""
    activity, _, context = row["question"].partition(": ")
    return {
        "activity_label": activity,
        "ctx_a": context,
        "ctx_b": "",
        "endings": row["choices"],
        "label": str(row["answer"]),
    }


#: Benchmark -> a row in its schema, and split -> file of questions.
COPIES: dict[str, tuple[Callable[[dict], dict], dict[str, str]]] = {
    "arc_easy": (arc, {"test": "arc_easy.test", "train": "arc_easy.train"}),
    "piqa": (piqa, {"validation": "piqa.validation", "train": "piqa.train_fewshot"}),
    "hellaswag": (
        hellaswag,
        {
            "validation": "hellaswag.validation",
            "train": "hellaswag.train_fewshot",
        },
    ),
}


def rows(path: Path) -> Iterator[dict]:
    """The questions of a file, one a line."""
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def main() -> None:
    """Write all copies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    options = parser.parse_args()
    for name, (make, splits) in COPIES.items():
        entry = BENCHMARKS[name]
        for split, file in splits.items():
            questions = rows(options.data / f"{file}.jsonl")
            table = pa.Table.from_pylist([make(row) for row in questions])
            folder = options.out / entry.hub / (entry.configuration or "data")
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{split}-00000-of-00001.parquet"
            pq.write_table(table, path)
            print(f"{path}: {table.num_rows} questions")


if __name__ == "__main__":
    main()
