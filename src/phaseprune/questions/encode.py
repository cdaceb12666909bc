"""Tokenising questions the way lm-evaluation-harness does, so that figures can be compared.

Context and continuation are tokenised together and cut at the length of the tokenised context
alone; trailing spaces of the context move to the continuation. A label or option is therefore
never tokenised by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from phaseprune.errors import UserError
from phaseprune.questions.prompts import option_labels, render
from phaseprune.questions.question import Question, Task


@dataclass(frozen=True)
class EncodedQuestion:
    """Token ids of one question.

    Attributes:
        context: the tokens all options share.
        continuations: each option's own tokens; a single one each for letters.
        units: each option's length in the task's unit of ``length_norm`` (1 for ``none``).
    """

    context: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]
    units: tuple[int, ...]

    @property
    def longest(self) -> int:
        """Tokens of the context and the longest option together."""
        return len(self.context) + max(len(c) for c in self.continuations)

    @property
    def tree_length(self) -> int:
        """Tokens that are run if all options follow the context in one row."""
        return len(self.context) + sum(len(c) - 1 for c in self.continuations)


def encode_task(task: Task, tokenizer, max_length: int | None = None) -> list[EncodedQuestion]:
    """Tokenise all questions of a task.

    Args:
        task: the questions and their scoring.
        tokenizer: a transformers tokenizer.
        max_length: tokens that the model can take, if it says so.

    Raises:
        UserError: labels that are not single distinct tokens, options that have no tokens, or a
            question longer than ``max_length``; each names the question.
    """
    encoded = []
    for question in task.questions:
        item = _encode(question, task, tokenizer)
        if max_length is not None and item.longest > max_length:
            raise UserError(
                f"question {question.id} of {task.name} has {item.longest} tokens and the model "
                f"takes {max_length}; shorten it or leave it out"
            )
        encoded.append(item)
    return encoded


def encode_pair(tokenizer, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Context and continuation ids of one pair (lm-eval's ``_encode_pair``)."""
    trailing = len(context) - len(context.rstrip())
    if trailing:
        context, continuation = context[:-trailing], context[-trailing:] + continuation
    whole = tokenizer(context + continuation)["input_ids"]
    alone = tokenizer(context)["input_ids"]
    return whole[: len(alone)], whole[len(alone) :]


def _encode(question: Question, task: Task, tokenizer) -> EncodedQuestion:
    context, continuations = render(question, task.scoring)
    pairs = [encode_pair(tokenizer, context, continuation) for continuation in continuations]
    contexts, endings = zip(*pairs, strict=True)
    if len(set(map(tuple, contexts))) > 1:
        # The tokenizer merges the last context token with some option: keep what all share.
        shared = _common_prefix(contexts)
        endings = [ctx[len(shared) :] + end for ctx, end in zip(contexts, endings, strict=True)]
    else:
        shared = contexts[0]
    if task.scoring == "letter":
        shared, endings = _single_labels(question, task, tokenizer, list(shared), endings)
    if not shared or any(not ending for ending in endings):
        raise UserError(f"question {question.id} of {task.name}: an option has no tokens to score")
    units = {
        "none": lambda choice, ending: 1,
        "chars": lambda choice, ending: len(choice),
        "bytes": lambda choice, ending: len(choice.encode()),
        "tokens": lambda choice, ending: len(ending),
    }[task.length_norm]
    return EncodedQuestion(
        tuple(shared),
        tuple(tuple(ending) for ending in endings),
        tuple(units(c, e) for c, e in zip(question.choices, endings, strict=True)),
    )


def _single_labels(question, task, tokenizer, context, endings):
    """Labels as one distinct token each; a lead that all labels share joins the context."""
    shared = _common_prefix(endings)
    if shared and len(shared) < min(map(len, endings)):
        context, endings = context + shared, [ending[len(shared) :] for ending in endings]
    labels = option_labels(len(endings))
    if any(len(ending) != 1 for ending in endings) or len({e[0] for e in endings}) < len(endings):
        shown = ", ".join(
            f"{label!r} -> {tokenizer.convert_ids_to_tokens(list(ending))}"
            for label, ending in zip(labels, endings, strict=True)
        )
        raise UserError(
            f"question {question.id} of {task.name}: the labels are not single distinct tokens in "
            f"this tokenizer ({shown}); use --scoring text"
        )
    return context, endings


def _common_prefix(sequences) -> list[int]:
    shared = []
    for column in zip(*sequences, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return shared
