"""Decisions of a model on a task: encode, lay out rows, walk, normalise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from phaseprune.decision.decisions import Decisions
from phaseprune.decision.trace import Trace, summarize
from phaseprune.decoder.decoder import Decoder
from phaseprune.errors import UserError
from phaseprune.questions.encode import EncodedQuestion, encode_task
from phaseprune.questions.prompts import option_labels
from phaseprune.questions.question import Task
from phaseprune.sweep.memory import batch_tokens, refuse_unfit, shard_tokens
from phaseprune.sweep.probe import packed_length
from phaseprune.sweep.rows import Rows, make_rows


@dataclass(frozen=True)
class Prepared:
    """A task made ready for one decoder: its rows and its options' lengths ``[Q, K]``.

    ``truncated`` counts the questions that lost tokens on the left to fit into the model.
    """

    task: Task
    rows: Rows
    units: np.ndarray
    truncated: int = 0

    @property
    def input_counts(self) -> dict[str, int]:
        """What a manifest says of the questions as they were put: cut ones, odd options."""
        return {"truncated_questions": self.truncated, **self.task.input_counts}

    @property
    def needs_vocabulary(self) -> bool:
        """Whether scores are log-probabilities over the vocabulary (else plain logits)."""
        return self.task.needs_vocabulary

    def decide(self, raw_scores: np.ndarray) -> Decisions:
        """Decisions from ``[Q, R, K]`` raw scores.

        Normalised texts are compared by (score per unit) x (mean units of the question's options),
        so that the scale stays that of a log-likelihood. With the vocabulary as support, a label's
        probability is its own and the options' do not sum to 1.
        """
        mean_units = np.nanmean(self.units, axis=1, keepdims=True)
        scale = np.nan_to_num(mean_units / self.units, nan=1.0)
        scores = raw_scores * scale[:, None, :]
        given = np.exp(raw_scores) if self.task.probability == "vocabulary" else None
        return Decisions(
            scores,
            self.task.gold,
            self.task.options,
            given,
            self.task.scoring == "letter",
            self.task.exchangeable,
        )


def prepare(decoder: Decoder, task: Task, *, streams: int | None = None) -> Prepared:
    """Encode a task and lay out its rows.

    Args:
        decoder: the model.
        task: its questions.
        streams: how many states of each token are run beside each other: 1 where the rows are only
            traced, by default the base and all candidates of a pruning step.

    Raises:
        UserError: a question cannot be put to this model (``questions.encode``), or does not fit
            into the stated memory.
    """
    inputs = encode_inputs(task, decoder.tokenizer, decoder.max_length)
    refuse_unknown_ids(task, inputs, decoder.model.get_input_embeddings().weight.shape[0])
    rows = make_rows(
        inputs.questions,
        batch_tokens(decoder),
        decoder.device,
        packed_length(decoder),
        inputs.orders,
        shard_tokens(decoder, streams),
    )
    refuse_unfit(decoder, rows, streams)
    units = np.full(rows.shape, np.nan)
    for (number, _), question in zip(inputs.orders, inputs.questions, strict=True):
        units[number, : len(question.units)] = question.units
    return Prepared(task, rows, units, inputs.truncated)


@dataclass(frozen=True)
class Inputs:
    """A task's questions as tokens; with permuted options a question stands there several times.

    ``orders`` says of each which question it is and the positions at which that has its options.
    """

    questions: list[EncodedQuestion]
    orders: list[tuple[int, Sequence[int]]]

    @property
    def truncated(self) -> int:
        """Questions that lost tokens on the left to fit into the model."""
        pairs = zip(self.orders, self.questions, strict=True)
        return len({number for (number, _), question in pairs if question.cut})


def refuse_unknown_ids(task: Task, inputs: Inputs, embeddings: int) -> None:
    """Refuse a question with a token that the embeddings have no row for.

    Raises:
        UserError: names the question and the id.
    """
    for (number, _), question in zip(inputs.orders, inputs.questions, strict=True):
        largest = max(max(ids, default=0) for ids in (question.context, *question.continuations))
        if largest >= embeddings:
            raise UserError(
                f"question {task.questions[number].id} of {task.name} has the token {largest}, and "
                f"the model's embeddings have {embeddings} rows; take that special token out of "
                "its text"
            )


def encode_inputs(task: Task, tokenizer, max_length: int | None) -> Inputs:
    """Tokenise a task as it is put to a model; needs no weights.

    Raises:
        UserError: see ``questions.encode``.
    """
    if task.permute:
        turned = [(n, *r) for n, q in enumerate(task.questions) for r in q.rotations()]
        put = task.with_questions([question for _, question, _ in turned])
        orders = [(number, order) for number, _, order in turned]
    else:
        put = task
        orders = [(n, range(len(q.choices))) for n, q in enumerate(task.questions)]
    return Inputs(encode_task(put, tokenizer, max_length), orders)


def label_tokens(decoder: Decoder, task: Task) -> dict[str, list] | None:
    """The labels of a task's question with most options, and their tokens; None for texts."""
    if task.scoring != "letter":
        return None
    widest = max(task.questions, key=lambda question: len(question.choices))
    inputs = encode_inputs(task.with_questions([widest]), decoder.tokenizer, decoder.max_length)
    encoded = inputs.questions[0]
    names = option_labels(len(widest.choices), task.labels)
    return {"labels": list(names), "token_ids": [tokens[-1] for tokens in encoded.continuations]}


def summarize_scores(decoder: Decoder, prepared: Prepared, raw: np.ndarray, seed: int) -> Trace:
    """The trace that ``[Q, L+1, K]`` raw scores of a prepared task make."""
    task = prepared.task
    return summarize(
        prepared.decide(raw),
        raw_scores=raw,
        question_ids=tuple(q.id for q in task.questions),
        groups=[q.group for q in task.questions],
        option_labels=option_labels(raw.shape[-1], task.labels),
        model=decoder.name,
        task=task.name,
        scoring=task.scoring,
        seed=seed,
    )
