"""Solved examples (few-shot) and the shuffling of options, both by seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from phaseprune.errors import UserError
from phaseprune.questions.question import Question, Shots

SHOT_ORDERS = ("first", "random")


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
                f"{where} has {len(examples)} usable examples{of} and --shots {count} needs "
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
