"""Minibatches of questions: which hidden states stand for them, and what is taken of these.

A minibatch is so many questions, and a question gives one state to it, so that the examples of a
minibatch are independent, as the unbiased HSIC asks. With letters that is the state at the last
prompt position. With texts a question has a state for every token of every option that is scored
(the one that predicts it); so many of them are drawn by seed, and the minibatch is gone through
once for each.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from phaseprune.decision.similarity import LEAST_GROUPS, hsic_vectors
from phaseprune.decoder.budget import in_words
from phaseprune.decoder.decoder import Decoder
from phaseprune.errors import UserError
from phaseprune.questions.question import Task
from phaseprune.sweep.measure import Prepared, prepare
from phaseprune.sweep.memory import state_budget
from phaseprune.sweep.rows import Shard
from phaseprune.sweep.scoring import add_scores, first_bad
from phaseprune.sweep.walk import walk

#: Questions of a minibatch without a number given: a tenth of them, within these bounds.
FEWEST, MOST = 8, 64
#: The most scored positions that a question gives.
POSITIONS = 8


def draw_minibatches(questions: int, size: int | None, seed: int) -> tuple[np.ndarray, ...]:
    """Positions of the questions of each minibatch, in an order by seed; none is left out.

    Args:
        questions: how many there are.
        size: questions of a minibatch at least; the last ones may have some more. None for a tenth
            of the questions, 8 to 64.
        seed: of the order.

    Raises:
        UserError: too few questions for an interval.
    """
    if size is None:
        size = min(MOST, max(FEWEST, questions // 10))
    if size < FEWEST:
        raise UserError(f"--minibatch={size} is too small; give at least {FEWEST} questions")
    if questions < LEAST_GROUPS * size:
        raise UserError(
            f"{questions} questions make {questions // size} minibatches of {size}, and CKA's "
            f"interval needs {LEAST_GROUPS}; give at least {LEAST_GROUPS * size} questions"
            + (f", or a smaller --minibatch (at least {FEWEST})" if size > FEWEST else "")
        )
    order = np.random.default_rng(seed).permutation(questions)
    return tuple(np.sort(part) for part in np.array_split(order, questions // size))


def prepare_minibatch(decoder: Decoder, task: Task, members: np.ndarray, streams: int) -> Prepared:
    """Lay out a minibatch in one shard, for so many models beside each other.

    Raises:
        UserError: a question cannot be put to this model, or there is no memory for that many.
    """
    chosen = task.with_questions([task.questions[number] for number in members])
    prepared = prepare(decoder, chosen, streams=streams)
    if len(prepared.rows.shards) > 1:
        raise UserError(
            f"{decoder.name}: {streams} models beside each other on a minibatch of {len(members)} "
            f"questions need more than half of the {in_words(state_budget(decoder))} that hidden "
            "states may take; give a smaller --minibatch, or a larger --max-memory"
        )
    return prepared


def examples(shard: Shard, width: int, members: np.ndarray, seed: int) -> np.ndarray:
    """Which reads of a shard stand for its questions.

    Args:
        shard: of one minibatch.
        width: K, slots a question.
        members: ``[n]`` positions of its questions in the task, for the seed.
        seed: of the draw.

    Returns:
        ``[P, n]`` numbers of reads: P rounds in which each question has one state. A question with
        fewer than P scored tokens begins again.
    """
    slots, reads = shard.entry_slots.cpu().numpy(), shard.entry_reads.cpu().numpy()
    order = np.lexsort((reads, slots))  # the same whether rows are packed or plain
    owner = slots[order] // width
    mine = [reads[order[owner == number]] for number in range(len(members))]
    rounds = min(POSITIONS, max(map(len, mine)))
    chosen = [
        np.resize(np.random.default_rng([seed, int(member)]).permutation(entries), rounds)
        for member, entries in zip(members, mine, strict=True)
    ]
    found = np.stack(chosen, axis=1)
    return found[:1] if (found == found[0]).all() else found


@dataclass(frozen=True)
class Seen:
    """What was taken of one minibatch.

    Attributes:
        cross: of each pruned model ``[L+1, L'+1]`` HSIC with the full one.
        own: of each model, the full one first, HSIC of its readouts with themselves.
        scores: likewise ``[n, R, K]`` raw option scores at its readouts.
    """

    cross: tuple[np.ndarray, ...]
    own: tuple[np.ndarray, ...]
    scores: tuple[np.ndarray, ...]


def see_minibatch(
    decoder: Decoder,
    prepared: Prepared,
    members: np.ndarray,
    removals: Sequence[Collection[int]],
    seed: int,
    progress: Callable[[int], None] = lambda streams: None,
) -> Seen:
    """Walk the full and the pruned models over a minibatch.

    States are taken as they pass and turned into the vectors of ``hsic_vectors`` at once, so what
    is held is the streams, and P n (n - 1) / 2 numbers for each readout of each model.

    Args:
        decoder: the full model.
        prepared: from ``prepare_minibatch``.
        members: positions of its questions.
        removals: for each model what it leaves out, nothing for the first.
        seed: of the states that are drawn.
        progress: told how many streams of a batch are done.

    Raises:
        UserError: a block gives NaN; names it and a question.
    """
    rows, task = prepared.rows, prepared.task
    shard, (questions, width) = rows.shards[0], rows.shape
    chosen = torch.as_tensor(examples(shard, width, members, seed), device=decoder.device)
    vectors: list[list[np.ndarray]] = [[] for _ in removals]
    sums: list[list[np.ndarray]] = [[] for _ in removals]

    for here in walk(decoder, shard, removals, progress=progress):
        streams, states = here.streams, here.at_reads()
        bad = first_bad(shard, states)
        if bad is not None:
            place = f"block {here.block}" if here.number else "the embeddings"
            without = sorted(removals[streams[bad[0]][0]])
            raise UserError(
                f"{decoder.name}: {place} gives NaN or infinite values on question "
                f"{task.questions[bad[1] // width].id!r}"
                + (f" without blocks {', '.join(map(str, without))}" if without else "")
                + "; try --dtype=float32"
            )
        scores = torch.zeros(len(streams), questions * width, dtype=torch.float64)
        add_scores(decoder, shard, states, prepared.needs_vocabulary, scores)
        for models, state, added in zip(streams, states, scores.numpy(), strict=True):
            taken = state[chosen].flatten(2).double().cpu().numpy()
            vector = hsic_vectors(taken).ravel() / np.sqrt(len(taken))
            for model in models:
                vectors[model].append(vector)
                sums[model].append(added)

    stacked = [np.stack(of) for of in vectors]
    return Seen(
        cross=tuple(stacked[0] @ other.T for other in stacked[1:]),
        own=tuple((of**2).sum(axis=1) for of in stacked),
        scores=tuple(_scores(np.stack(of), rows) for of in sums),
    )


def _scores(sums: np.ndarray, rows) -> np.ndarray:
    """``[n, R, K]`` raw scores from ``[R, n * K]`` sums; ``-inf`` where an option is absent."""
    scores = sums.reshape(len(sums), *rows.shape).transpose(1, 0, 2) / rows.repeats[:, None, None]
    scores[np.broadcast_to(rows.absent[:, None], scores.shape)] = -np.inf
    return scores
