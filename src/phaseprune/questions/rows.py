"""Rows of the hub's data sets as fields of a question.

``columns`` makes a reader from names of columns; the functions below it are for data sets that need
more than names. A reader gives ``text``, ``choices``, ``answer`` and, where contexts differ from
option to option, ``pairs``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from string import ascii_uppercase
from typing import Any

Row = dict[str, Any]


def columns(
    question: str, choices: str | Sequence[str], answer: str, first: int = 0
) -> Callable[[Row], Row]:
    """A reader of plain columns.

    Args:
        question: a column, or a template with ``{column}``.
        choices: a column with a list (or ARC's ``{"text": …, "label": …}``), or one column each.
        answer: a column with a label of that row, a letter, or a number.
        first: the number of the first option.
    """

    def read(row: Row) -> Row:
        labels = list(ascii_uppercase)
        if isinstance(choices, str):
            options = row[choices]
            if isinstance(options, dict):
                options, labels = options["text"], [str(label) for label in options["label"]]
        else:
            options = [row[column] for column in choices]
        given = str(row[answer]).strip()
        if given in labels:
            index = labels.index(given)
        elif given.upper() in labels:
            index = labels.index(given.upper())
        else:
            index = int(given) - first
        text = question.format_map(row) if "{" in question else row[question]
        return {"text": text, "choices": tuple(options), "answer": index}

    return read


def hellaswag(row: Row) -> Row:
    """The context with its activity, cleaned of WikiHow's marks."""
    context = f"{row['ctx_a']} {row['ctx_b'].capitalize()}"
    return {
        "text": _without_marks(f"{row['activity_label']}: {context}"),
        "choices": tuple(_without_marks(ending) for ending in row["endings"]),
        "answer": int(row["label"]),
    }


def winogrande(row: Row) -> Row:
    """A sentence with a blank: each option fills it, and what follows the blank is scored."""
    before, _, after = row["sentence"].partition("_")
    options = (row["option1"], row["option2"])
    return {
        "text": row["sentence"],
        "choices": options,
        "answer": int(row["answer"]) - 1,
        "pairs": tuple((before + option, after.strip()) for option in options),
    }


def boolq(row: Row) -> Row:
    """A passage and a question without its mark; the label is 1 for yes."""
    text = f"{row['passage']}\nQuestion: {row['question']}?"
    return {"text": text, "choices": ("no", "yes"), "answer": row["label"]}


def race(row: Row) -> Row:
    """An article with several problems: all but the last stand solved, the last is asked."""
    *solved, asked = ast.literal_eval(row["problems"])
    text = f"Article: {row['article']}\n\n"
    for problem in solved:
        right = problem["options"][ascii_uppercase.index(problem["answer"])]
        if problem["question"].endswith("  _  ."):
            text += f"{problem['question'][:-5]}{right}\n"
        else:
            text += f"Question: {problem['question']}\nAnswer: {right}\n"
    return {
        "text": text + asked["question"],
        "choices": tuple(asked["options"]),
        "answer": ascii_uppercase.index(asked["answer"]),
    }


def sciq(row: Row) -> Row:
    """A supporting passage and a question; the right option is put last."""
    wrong = tuple(row[f"distractor{i}"] for i in (1, 2, 3))
    return {
        "text": f"{row['support'].lstrip()}\nQuestion: {row['question']}",
        "choices": (*wrong, row["correct_answer"]),
        "answer": 3,
    }


def copa(row: Row) -> Row:
    """A premise that goes on with its cause or its effect."""
    connector = {"cause": "because", "effect": "therefore"}[row["question"]]
    options = (row["choice1"], row["choice2"])
    return {
        "text": f"{row['premise'].strip()[:-1]} {connector}",
        # lm-eval's options begin with a space besides the delimiter's, so two are scored.
        "choices": tuple(f" {option[0].lower()}{option[1:]}" for option in options),
        "answer": int(row["label"]),
    }


def truthfulqa_mc1(row: Row) -> Row:
    """One true answer, which the data put first, and false ones."""
    targets = row["mc1_targets"]
    choices = tuple(targets["choices"])
    return {"text": row["question"], "choices": choices, "answer": targets["labels"].index(1)}


def gpqa(row: Row) -> Row:
    """Three wrong answers and the right one, which is put last."""
    names = [f"Incorrect Answer {i}" for i in (1, 2, 3)] + ["Correct Answer"]
    options = tuple(
        (row[name] or " ").strip().replace(" [title]", ". ").replace("  ", " ") for name in names
    )
    return {"text": row["Question"], "choices": options, "answer": 3}


def _without_marks(text: str) -> str:
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")
