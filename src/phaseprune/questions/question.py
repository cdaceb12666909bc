"""Question, Prompt, Shots and Task; what of them is drawn by seed."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any

import numpy as np

from phaseprune.errors import UserError

SCORINGS = ("letter", "text")
SHOT_ORDERS = ("first", "random")


@dataclass(frozen=True)
class Question:
    """One multiple-choice item with k >= 2 options; ``answer`` is the 0-based right one.

    ``pairs`` is for questions whose texts cannot be made from a common context and the choices: a
    (context, ending) an option, used as it is in text scoring.
    """

    id: str
    text: str
    choices: tuple[str, ...]
    answer: int
    group: str | None = None
    pairs: tuple[tuple[str, str], ...] | None = None

    @property
    def content(self) -> str:
        """Sha256 of what is asked: two questions with the same content are the same question."""
        return hashlib.sha256(json.dumps([self.text, self.choices]).encode()).hexdigest()

    def rotations(self) -> list[tuple[Question, tuple[int, ...]]]:
        """The k cyclic permutations of the options, each with the old positions in new order."""
        count = len(self.choices)
        orders = [tuple((i + shift) % count for i in range(count)) for shift in range(count)]
        return [(self.reordered(order), order) for order in orders]

    def reordered(self, order: Sequence[int]) -> Question:
        """The same question with its options in another order (``order``: old positions)."""
        return replace(
            self,
            choices=tuple(self.choices[i] for i in order),
            answer=list(order).index(self.answer),
            pairs=self.pairs and tuple(self.pairs[i] for i in order),
        )


@dataclass(frozen=True)
class Prompt:
    """Templates of one way to put a question.

    Attributes:
        name: recorded in a manifest, as ``mmlu`` in ``letter/mmlu``.
        text: the context where options are scored as texts; has ``{question}`` and may have
            ``{options}``.
        letter: the context where labels are scored; has ``{question}`` and ``{options}``, which
            are one line an option.
        description: stands before everything else; may have ``{group}``.
        strip: whether white space around the question goes where labels are scored.
        groups: what ``{group}`` is for a group, where that is not its name.
        delimiter: stands between a question and its answer.
        messages: whether the contexts of questions' ``pairs`` are JSON lists of chat messages.
    """

    name: str
    text: str = "Question: {question}\nAnswer:"
    letter: str = "{question}\n{options}\nAnswer:"
    description: str = ""
    strip: bool = True
    groups: Mapping[str, str] = field(default_factory=dict)
    delimiter: str = " "
    messages: bool = False


#: The prompts of questions that come without one of their own.
DEFAULT_PROMPTS = {"letter": Prompt("mmlu"), "text": Prompt("arc")}


@dataclass(frozen=True)
class Shots:
    """Solved examples that stand before each question (few-shot).

    Attributes:
        by_group: the examples of each group of questions; those of None are for all others.
        order: ``first`` or ``random``, how they were chosen.
    """

    by_group: Mapping[str | None, tuple[Question, ...]]
    order: str

    @property
    def count(self) -> int:
        """Examples before a question."""
        return len(next(iter(self.by_group.values())))

    @property
    def fingerprint(self) -> str:
        """Sha256 of the examples, in order."""
        return _digest(q for group in self.by_group.values() for q in group)

    def of(self, question: Question) -> tuple[Question, ...]:
        """The examples for a question."""
        return self.by_group.get(question.group) or self.by_group[None]


@dataclass(frozen=True, repr=False)
class Task:
    """Questions and how they are scored.

    Attributes:
        name: what the user called it.
        questions: the questions, in order.
        scoring: ``letter`` or ``text`` (see ``questions.prompts``).
        length_norm: ``none``, ``chars``, ``bytes`` or ``tokens``: what a text's log-likelihood is
            divided by before options are compared.
        probability: ``options`` or ``vocabulary``: the support of the softmax for letters.
        prompt: the templates, None for the default ones of the scoring.
        labels: the style of labels (``prompts.LABEL_STYLES``).
        shots: solved examples before each question, None for none.
        chat: whether the question is put in the tokenizer's chat template.
        shuffled: the seed by which options were shuffled, None if they were not.
        permute: whether scores are averaged over the cyclic permutations of the options.
        settings: what ``load_task`` was given beside the name, to load the same task again.
        recognised: of a file, what its rows were recognised as, in words.
        notes: of a file, what whoever uses its questions should know, a sentence each.
    """

    name: str
    questions: tuple[Question, ...]
    scoring: str = "letter"
    length_norm: str = "none"
    probability: str = "options"
    prompt: Prompt | None = None
    labels: str = "A"
    shots: Shots | None = None
    chat: bool = False
    shuffled: int | None = None
    permute: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    recognised: str | None = field(default=None, compare=False, repr=False)
    notes: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @property
    def fingerprint(self) -> str:
        """Sha256 of the questions, choices, answers and ids, in order."""
        return _digest(self.questions)

    @property
    def prompt_format(self) -> str:
        """How questions are put, in words, as ``text/arc + 5 first shots``."""
        prompt = self.prompt or DEFAULT_PROMPTS[self.scoring]
        parts = [f"{self.scoring}/{prompt.name}"]
        if self.scoring == "letter" and self.labels != "A":
            parts.append(f"labels {self.labels}")
        if self.shots:
            parts.append(f"{self.shots.count} {self.shots.order} shots")
        if self.shuffled is not None:
            parts.append(f"options shuffled by seed {self.shuffled}")
        if self.permute:
            parts.append("mean over cyclic permutations")
        if self.chat:
            parts.append("chat")
        return " + ".join(parts)

    @property
    def identity(self) -> dict[str, Any]:
        """What says which questions are put and how they are scored, for a run's manifest."""
        return {
            "name": self.name,
            "scoring": self.scoring,
            "length_norm": self.length_norm,
            "probability": self.probability,
            "questions": len(self.questions),
            "fingerprint": self.fingerprint,
            "shots_fingerprint": self.shots and self.shots.fingerprint,
        }

    @property
    def duplicated(self) -> int:
        """How many questions have an option twice (the later one can never be decided for)."""
        return sum(len(set(q.choices)) < len(q.choices) for q in self.questions)

    @property
    def begun(self) -> int:
        """How many questions have an option that begins another, where plain sums are compared.

        The longer one's log-likelihood is then that of the shorter one and something negative.
        """
        if self.scoring != "text" or self.length_norm != "none":
            return 0
        return sum(
            any(a != b and b.startswith(a) for a, b in permutations(q.choices, 2))
            for q in self.questions
        )

    @property
    def input_counts(self) -> dict[str, int]:
        """What a manifest says of questions whose options are no fair choice."""
        return {"duplicated_options": self.duplicated, "begun_options": self.begun}

    @property
    def needs_vocabulary(self) -> bool:
        """Whether scores are log-probabilities over the vocabulary (else plain logits)."""
        return self.scoring == "text" or self.probability == "vocabulary"

    @property
    def exchangeable(self) -> bool:
        """Whether the right option is always in one place (or the last), and that means nothing.

        So it is of texts that are scored without showing the options, as sciq's, whose right one is
        the last of each row. Not where one text is right more often than all others together: a
        model that prefers that text whatever is asked would not guess.
        """
        if self.scoring != "text" or not self.questions or self._shows_options():
            return False
        gold, options = self.gold, self.options
        one_place = bool((gold == gold[0]).all() or (gold == options - 1).all())
        right = Counter(q.choices[q.answer].strip().lower() for q in self.questions)
        return one_place and 2 * max(right.values()) <= len(self.questions)

    def _shows_options(self) -> bool:
        """Whether the prompt of texts shows the options, or one made elsewhere mostly does."""
        if self.prompt is not None and "{options}" in self.prompt.text:
            return True
        shown = [
            all(choice.strip() in context for choice in q.choices for context, _ in q.pairs)
            for q in self.questions
            if q.pairs is not None
        ]
        return 2 * sum(shown) > len(self.questions)

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

    def __repr__(self) -> str:
        return f"Task: {self.name} ({len(self.questions)} questions, {self.prompt_format})"

    def with_questions(self, questions: Sequence[Question]) -> Task:
        """The same task over other questions."""
        return replace(self, questions=tuple(questions))

    def head(self, limit: int | None) -> Task:
        """The first ``limit`` questions (all for None), as lm-eval's ``--limit`` takes them."""
        return self if limit is None else self.with_questions(self.questions[:limit])


def choose_shots(
    pool: Sequence[Question],
    scored: Sequence[Question],
    count: int,
    order: str,
    seed: int,
    where: str,
) -> Shots:
    """Choose the examples that stand before the scored questions.

    If every group of the scored questions has examples of its own in the pool (MMLU's subjects
    do), each gets its own group's; otherwise all get the same ones. All questions of a group share
    their examples, and thus the beginning of their prompts.

    Args:
        pool: solved questions to choose from.
        scored: the questions that will be scored; one of them is never an example.
        count: how many examples.
        order: ``first`` takes the first ones, ``random`` draws them by seed.
        seed: of the draw.
        where: where the pool is from, for errors.

    Raises:
        UserError: the pool has too few questions that are not scored.
    """
    contents = {question.content for question in scored}
    usable = [question for question in pool if question.content not in contents]
    groups = sorted({question.group for question in scored}, key=str)
    grouped = {group: [q for q in usable if q.group == group] for group in groups}
    if None in groups or not all(grouped.values()):
        grouped = {None: usable}
    chosen = {}
    for group, examples in grouped.items():
        if len(examples) < count:
            of = f" of {group}" if group else ""
            raise UserError(
                f"{where} has {len(examples)} usable examples{of} and --shots={count} needs "
                f"{count} (questions that are scored are never examples); ask for fewer shots"
            )
        if order == "random":
            drawn = np.random.default_rng(seed).choice(len(examples), count, replace=False)
            examples = [examples[i] for i in drawn]
        chosen[group] = tuple(examples[:count])
    return Shots(chosen, order)


def shuffle_options(questions: Sequence[Question], seed: int) -> list[Question]:
    """Each question with its options in an order drawn from the seed and its own content.

    The order does not depend on the other questions, so ``--limit`` does not change it.
    """
    shuffled = []
    for question in questions:
        draw = np.random.default_rng([seed, int(question.content[:12], 16)])
        shuffled.append(question.reordered(draw.permutation(len(question.choices)).tolist()))
    return shuffled


def _digest(questions) -> str:
    digest = hashlib.sha256()
    for q in questions:
        fields = [q.id, q.text, q.choices, q.answer]
        digest.update(json.dumps(fields if q.pairs is None else [*fields, q.pairs]).encode())
    return digest.hexdigest()
