"""Rows of our own in the schema of each benchmark's data set on the hub, as parquet files."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from phaseprune.questions.benchmarks import BENCHMARKS, CEVAL_SUBJECTS

ABCD = ["a stone", "the rain ", "two birds", "iron"]


def lettered(i, column, label="answerKey", options=4, **more):
    """ARC's layout of options."""
    labels = list("ABCDE")[:options] if i % 2 == 0 or options == 5 else list("12345")[:options]
    texts = (ABCD + ["a fifth thing"])[:options]
    return {
        column: f" Which of them falls, number {i}? ",
        "choices": {"text": texts, "label": labels},
        label: labels[i % options],
        **more,
    }


def race(i):
    problems = [
        {"question": "What fell {first}?", "answer": "B", "options": ABCD},
        {"question": "It fell on  _  .", "answer": "D", "options": ABCD},
        {"question": f"What came {i}th?", "answer": "ABCD"[i % 4], "options": ABCD},
    ]
    return {"article": f"Long ago, {i} things fell.", "problems": repr(problems)}


def gpqa(i):
    wrong = {f"Incorrect Answer {n}": f"wrong {n}" for n in (1, 2, 3)}
    return {"Question": f" What is {i}?\n", "Correct Answer": " right  one ", **wrong}


def medmcqa(i):
    options = dict(zip(("opa", "opb", "opc", "opd"), ABCD, strict=True))
    return {
        "id": f"m{i}",
        "question": f"Which bone {i} ",
        **options,
        "cop": i % 4,
        "subject_name": "Anatomy",
    }


#: Benchmark -> a row of its data set by number.
ROWS = {
    "arc_easy": lambda i: lettered(i, "question", id=f"Mercury_{i}", options=3 + i % 3),
    "arc_challenge": lambda i: lettered(i, "question", id=f"Mercury_{i}"),
    "hellaswag": lambda i: {
        "ind": i,
        "activity_label": "Cooking",
        "ctx_a": f"A cook [header] has {i}  eggs.",
        "ctx_b": "they",
        "endings": [f"[step] break  {n} [title] eggs" for n in range(4)],
        "label": str(i % 4),
    },
    "mmlu": lambda i: {"question": f" What is {i} {{x}}? ", "choices": ABCD, "answer": i % 4},
    "mmlu_pro": lambda i: {
        "question_id": i,
        "question": f"What is {i}?",
        "options": [*ABCD, *ABCD[:2], "x", "y", "z"],
        "answer": "I",
        "answer_index": 8,
        "category": ("law", "computer science")[i % 2],
    },
    "commonsense_qa": lambda i: lettered(i, "question", options=5, id=f"c{i}"),
    "openbookqa": lambda i: lettered(2 * i, "question_stem", id=f"7-{i}", fact1="Things fall."),
    "piqa": lambda i: {
        "goal": f"To open door {i}",
        "sol1": "push it",
        "sol2": "eat it",
        "label": i % 2,
    },
    "social_iqa": lambda i: {
        "context": f"Kai met {i} dogs.",
        "question": "Why?",
        "answerA": "to play",
        "answerB": "by chance",
        "answerC": "to eat",
        "label": str(1 + i % 3),
    },
    "winogrande": lambda i: {
        "sentence": f"Ann gave Eve {i} figs because _ was hungry.",
        "option1": "Ann",
        "option2": "Eve",
        "answer": "12"[i % 2],
    },
    "boolq": lambda i: {
        "question": f"is {i} even",
        "passage": "Numbers are odd or even.",
        "idx": i,
        "label": i % 2,
    },
    "race": race,
    "sciq": lambda i: {
        "question": f"What falls {i}?",
        "support": "\n Rain falls.",
        "distractor1": "stone",
        "distractor2": "fire",
        "distractor3": "air",
        "correct_answer": "rain",
    },
    "copa": lambda i: {
        "premise": f"Glass {i} broke. ",
        "choice1": "It fell.",
        "choice2": "I slept.",
        "question": ("cause", "effect")[i % 2],
        "idx": i,
        "label": i % 2,
    },
    "truthfulqa_mc1": lambda i: {
        "question": f"What is {i}?",
        "mc1_targets": {"choices": ["A number.", "A letter.", "A bird."], "labels": [1, 0, 0]},
        "mc2_targets": {"choices": ["A number."], "labels": [1]},
    },
    "logiqa": lambda i: {
        "label": "abcd"[i % 4],
        "context": f"All {i} fall.",
        "options": ABCD,
        "question": "What follows?",
    },
    "gpqa": gpqa,
    "gpqa_diamond": gpqa,
    "medmcqa": medmcqa,
    "ceval": lambda i: {
        "id": i,
        "question": f"下列 {i} ",
        **dict(zip("ABCD", ABCD, strict=True)),
        "answer": "ABCD"[i % 4],
        "explanation": "",
    },
}
#: Subjects written where a benchmark has some.
SUBJECTS = {"mmlu": ("anatomy", "us_foreign_policy", "virology"), "ceval": tuple(CEVAL_SUBJECTS)}


def write_hub(root: Path, name: str, rows: int = 4) -> Path:
    """Write a benchmark's splits under ``root`` as the hub lays them out; gives ``root``."""
    entry = BENCHMARKS[name]
    if name == "ceval":
        parts = {subject: [ROWS[name]] for subject in SUBJECTS[name]}
    else:
        parts = {entry.configuration or "data": [ROWS[name]]}
    for folder, (make,) in parts.items():
        for split, start in ((entry.split, 0), (entry.shots_split, 100)):
            if split is None or (split == entry.split and start):
                continue
            content = [make(start + i) for i in range(rows)]
            if name == "mmlu":
                content = [dict(r, subject=s) for s in SUBJECTS[name] for r in content]
            target = root / entry.hub / folder / f"{split}-00000-of-00001.parquet"
            target.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(content), target)
    return root
