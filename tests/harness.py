"""The same questions scored by lm-evaluation-harness and by phaseprune, for parity.

Tests and ``benchmarks/parity.py`` use it. lm-eval runs as its users run it: a YAML of ours over a
JSON file, its own HFLM, its own ``simple_evaluate``; we only hand it the model in memory.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from phaseprune.decoder.load import load_model
from phaseprune.pruning.export_run import export_run, run_to_export
from phaseprune.pruning.prune import prune
from phaseprune.questions.catalog import load_task
from phaseprune.questions.split import split
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.walk import trace_scores

#: Data set -> (file of scored questions, file of examples), both in ``shared/data``.
FILES = {
    "arc_easy": ("arc_easy.test", "arc_easy.train"),
    "arc_challenge": ("arc_challenge.test", "arc_challenge.train"),
    "hellaswag": ("hellaswag.validation", "hellaswag.train_fewshot"),
    "piqa": ("piqa.validation", "piqa.train_fewshot"),
    "openbookqa": ("openbookqa.test", "openbookqa.train"),
    "commonsense_qa": ("commonsense_qa.validation", "commonsense_qa.train"),
    "mmlu": ("mmlu.test.subset", "mmlu.dev"),
}
LETTERS = (
    "{{question.strip()}}\n"
    "{% for choice in choices %}{{'ABCDEFGH'[loop.index0]}}. {{choice}}\n{% endfor %}Answer:"
)
TEXTS = "Question: {{question}}\nAnswer:"


@dataclass(frozen=True)
class Parity:
    """What both sides said, question by question."""

    log_likelihoods: list[np.ndarray]
    ours: list[np.ndarray]
    accuracy: np.ndarray
    our_accuracy: np.ndarray
    normalised: np.ndarray
    our_normalised: np.ndarray

    @property
    def difference(self) -> float:
        """Largest difference of an option's log-likelihood."""
        return max(
            float(np.abs(theirs - our).max())
            for theirs, our in zip(self.log_likelihoods, self.ours, strict=True)
        )


def rows_of(path: Path, count: int | None, every: int = 1) -> list[dict]:
    """Rows of a file with what lm-eval needs, and the fields in one order for all of them."""
    lines = path.read_text(encoding="utf-8").splitlines()[::every][:count]
    rows = [json.loads(line) for line in lines]
    return [
        {"id": str(i), "question": r["question"], "choices": r["choices"], "answer": r["answer"]}
        for i, r in enumerate(rows)
    ]


def write_task(folder: Path, name: str, scoring: str, rows: list[dict], shots: list[dict]) -> Path:
    """Write the questions, the examples and the YAML of a task; gives the questions' file."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"test": folder / f"{name}.jsonl", "train": folder / f"{name}.shots.jsonl"}
    for path, content in zip(files.values(), (rows, shots or rows[:1]), strict=True):
        path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    letters = scoring == "letter"
    config = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {split: str(path) for split, path in files.items()}},
        "output_type": "multiple_choice",
        "test_split": "test",
        "fewshot_split": "train",
        "fewshot_config": {"sampler": "first_n"},
        "doc_to_text": LETTERS if letters else TEXTS,
        "doc_to_target": "answer",
        "doc_to_choice": "{{'ABCDEFGH'[:choices|length]|list}}" if letters else "choices",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return files["test"]


def lm_eval_samples(
    decoder, folder: Path, name: str, shots: int, softmax_dtype: str | None = None, **options
) -> list[dict]:
    """lm-eval's own samples of a task, by question; ``softmax_dtype`` is its HFLM's."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    model = HFLM(
        pretrained=decoder.model,
        tokenizer=decoder.tokenizer,
        batch_size=8,
        softmax_dtype=softmax_dtype,
    )
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    result = simple_evaluate(
        model=model,
        tasks=[name],
        num_fewshot=shots,
        task_manager=manager,
        log_samples=True,
        bootstrap_iters=0,
        verbosity="ERROR",
        **options,
    )
    return sorted(result["samples"][name], key=lambda sample: sample["doc_id"])


def compare(decoder, task, samples: list[dict]) -> Parity:
    """Score a task with phaseprune and lay it beside lm-eval's samples.

    The task's scores must be log-likelihoods: texts, or letters with ``vocabulary``.
    """
    prepared = prepare(decoder, task)
    raw = trace_scores(decoder, prepared.rows, prepared.needs_vocabulary, output_only=True)[:, 0]
    ours = [row[:k] for row, k in zip(raw, task.options, strict=True)]
    # Behind the options' own log-likelihoods may stand those of the mutual-information metric.
    theirs = [
        np.array([r[0] for r in sample["filtered_resps"]][:k])
        for sample, k in zip(samples, task.options, strict=True)
    ]
    lengths = [[len(choice) for choice in q.choices] for q in task.questions]
    if task.scoring == "letter":
        lengths = [[1] * len(q.choices) for q in task.questions]
    best = [int(np.argmax(scores)) for scores in ours]
    longest = [int(np.argmax(s / np.array(n))) for s, n in zip(ours, lengths, strict=True)]
    return Parity(
        theirs,
        ours,
        np.array([sample["acc"] for sample in samples]),
        (np.array(best) == task.gold).astype(float),
        np.array([sample.get("acc_norm", np.nan) for sample in samples]),
        (np.array(longest) == task.gold).astype(float),
    )


def parity(
    decoder,
    data: Path,
    name: str,
    scoring: str,
    shots: int,
    count: int,
    folder: Path,
    every: int = 1,
    **options,
) -> Parity:
    """Both sides on the first ``count`` questions (of every so-many-th) of a data set."""
    scored, examples = (data / f"{file}.jsonl" for file in FILES[name])
    label = f"{name}_{scoring}_{shots}"
    path = write_task(
        folder, label, scoring, rows_of(scored, count, every), rows_of(examples, 8 * (shots > 0))
    )
    task = load_task(
        str(path),
        scoring=scoring,
        probability="vocabulary" if scoring == "letter" else "options",
        shots=shots,
        shots_from=path.with_name(f"{label}.shots.jsonl") if shots else None,
        chat=options.get("apply_chat_template", False),
    )
    return compare(decoder, task, lm_eval_samples(decoder, folder, label, shots, **options))


def claimed_and_found(decoder, task, folder: Path, remove: int, calibration: int):
    """Prune, export and reload; what the run claims of its last step and what lm-eval finds.

    Both as a string with a 1 for each evaluation question that is answered rightly. lm-eval is
    given the evaluation questions as a file and the exported directory, and the run's accuracy must
    be the share of ones.
    """
    prune(decoder, task, remove=remove, calibration=calibration, out=folder / "run")
    export_run(decoder, run_to_export(folder / "run"))
    _, evaluation = split(task, calibration, None, 0)
    rows = [
        {"id": q.id, "question": q.text, "choices": list(q.choices), "answer": q.answer}
        for q in evaluation.questions
    ]
    write_task(folder / "yaml", "evaluation", task.scoring, rows, [])
    exported = load_model(str(folder / "run" / "model"))
    samples = lm_eval_samples(exported, folder / "yaml", "evaluation", 0)
    steps = (folder / "run" / "steps.jsonl").read_text(encoding="utf-8").splitlines()
    claimed = json.loads(steps[-1])["evaluation"]
    found = "".join(str(int(sample["acc"])) for sample in samples)
    assert claimed["accuracy"] == found.count("1") / len(found)
    return claimed["correct"], found
