"""The default prompts, those of lm-evaluation-harness.

``letter`` is put as lm-eval's MMLU, ``text`` as its ARC. docs/questions.md shows both.
"""

from __future__ import annotations

from string import ascii_uppercase

from phaseprune.questions.question import Question

#: Names recorded in a manifest as ``prompt_format``.
PROMPT_FORMATS = {"letter": "letter/mmlu", "text": "text/arc"}


def option_labels(options: int) -> tuple[str, ...]:
    """``A``, ``B``, … for that many options."""
    return tuple(ascii_uppercase[:options])


def render(question: Question, scoring: str) -> tuple[str, list[str]]:
    """The context of a question and one continuation an option.

    ``letter``: the options stand in the context and the continuations are `` A``, `` B``, …;
    ``text``: each option's own text is a continuation.
    """
    if scoring == "text":
        return f"Question: {question.text}\nAnswer:", [f" {choice}" for choice in question.choices]
    labels = option_labels(len(question.choices))
    lines = [question.text.strip()]
    lines += [f"{label}. {choice}" for label, choice in zip(labels, question.choices, strict=True)]
    return "\n".join(lines) + "\nAnswer:", [f" {label}" for label in labels]
