"""Question and Task."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

SCORINGS = ("letter", "text")


@dataclass(frozen=True)
class Question:
    """One multiple-choice item with k >= 2 options; ``answer`` is the 0-based right one."""

    id: str
    text: str
    choices: tuple[str, ...]
    answer: int
    group: str | None = None

    @property
    def content(self) -> str:
        """Sha256 of what is asked: two questions with the same content are the same question."""
        return hashlib.sha256(json.dumps([self.text, self.choices]).encode()).hexdigest()


@dataclass(frozen=True)
class Task:
    """Questions and how they are scored.

    Attributes:
        name: what the user called it.
        questions: the questions, in order.
        scoring: ``letter`` or ``text`` (see ``questions.prompts``).
        length_norm: ``none``, ``chars``, ``bytes`` or ``tokens``: what a text's log-likelihood is
            divided by before options are compared.
        probability: ``options`` or ``vocabulary``: the support of the softmax for letters.
    """

    name: str
    questions: tuple[Question, ...]
    scoring: str = "letter"
    length_norm: str = "none"
    probability: str = "options"

    @property
    def fingerprint(self) -> str:
        """Sha256 of the questions, choices, answers and ids, in order."""
        digest = hashlib.sha256()
        for q in self.questions:
            digest.update(json.dumps([q.id, q.text, q.choices, q.answer]).encode())
        return digest.hexdigest()

    @property
    def gold(self) -> np.ndarray:
        """``[Q]`` right options."""
        return np.array([q.answer for q in self.questions])

    @property
    def options(self) -> np.ndarray:
        """``[Q]`` number of options."""
        return np.array([len(q.choices) for q in self.questions])

    @property
    def chance(self) -> float:
        """Mean of 1/k."""
        return float((1 / self.options).mean())

    def with_questions(self, questions: Sequence[Question]) -> Task:
        """The same task over other questions."""
        return replace(self, questions=tuple(questions))

    def head(self, limit: int | None) -> Task:
        """The first ``limit`` questions (all for None), as lm-eval's ``--limit`` takes them."""
        return self if limit is None else self.with_questions(self.questions[:limit])
