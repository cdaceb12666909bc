"""``rank_blocks``: which blocks a method removes first, and by what scores."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from phaseprune.decision import rankings
from phaseprune.decision.laco import Merge
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.weight_scores import check_gradients
from phaseprune.errors import UserError
from phaseprune.methods.laco import check_merges
from phaseprune.methods.measures import MEASURES, Work
from phaseprune.methods.objectives import check_letters
from phaseprune.methods.plain_text import PlainText, read_windows
from phaseprune.methods.registry import (
    EITHER,
    GRADIENTS,
    QUESTIONS,
    TEXT,
    Method,
    check_length,
    find_method,
)
from phaseprune.progress import Progress, silent
from phaseprune.questions.question import Task
from phaseprune.runs.result import Result, named


@dataclass(frozen=True, repr=False)
class Ranking(Result):
    """The order in which a method removes blocks.

    Attributes:
        method: its name.
        model: what the model was called.
        chosen_on: the task's name or the text's path; None where the method looks at neither.
        remove: how many blocks were asked for; None for all that may go.
        seed: of what is drawn.
        protect: blocks that were never to be removed, those of the method itself among them.
        order: original indices, the first removed first (of ``angular``, whose window goes at once,
            in order of index; of ``evolutionary``, whose set does, by the figure without the block
            alone).
        scores: ``[L]`` by original index, in the method's own unit; NaN where a block has none. Of
            a search, and of ``block_influence_iterative``, the figure at the step at which the
            block went, which ``pairwise`` only predicts; of ``angular`` that of the window that
            begins there; of ``evolutionary`` that without the block alone.
        block_passes: counted runs of one block over all rows; a backward run counts as two.
        by_number: of ``beam``, the order for 1, 2, … blocks, of which none need begin another; None
            where the order for fewer blocks is the beginning of this one, or takes another run.
        merges: of ``laco``, which blocks take in those that go; None where weights stay.
        budget: of ``planned``, how many blocks of the order can go, as ``plan.json`` has it.
    """

    method: str
    model: str
    chosen_on: str | None
    remove: int | None
    seed: int
    protect: tuple[int, ...]
    order: tuple[int, ...]
    scores: np.ndarray
    block_passes: int
    by_number: tuple[tuple[int, ...], ...] | None = None
    merges: tuple[Merge, ...] | None = None
    budget: dict[str, Any] | None = None

    def _lines(self) -> list[str]:
        on = f", chosen on {self.chosen_on}" if self.chosen_on else ""
        kept = f"; protected: {named(self.protect)}" if self.protect else ""
        return [
            f"{self.model}, by {self.method}{on}",
            f"order {named(self.order)}{kept}",
        ]

    def _rows(self) -> list[dict[str, Any]]:
        """A row a block, those of the order first."""
        rest = [block for block in range(len(self.scores)) if block not in self.order]
        return [
            {
                "block": block,
                "removed_as": place if place <= len(self.order) else None,
                "score": float(self.scores[block]) if np.isfinite(self.scores[block]) else None,
            }
            for place, block in enumerate([*self.order, *rest], start=1)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; None for a score that is not there, or infinite."""
        scores = [float(score) if np.isfinite(score) else None for score in self.scores]
        found = asdict(self) | {
            "protect": list(self.protect),
            "order": list(self.order),
            "scores": scores,
        }
        by_number, merges = found.pop("by_number"), found.pop("merges")
        found |= {} if by_number is None else {"by_number": list(map(list, by_number))}
        if merges is not None:
            found["merges"] = [merge.to_dict() for merge in self.merges]
        if self.budget is None:
            del found["budget"]
        return found


def rank_blocks(
    decoder: Decoder,
    chosen_on: Task | PlainText | str | Path | None = None,
    *,
    method: str,
    remove: int | None = None,
    seed: int = 0,
    protect: Collection[int] = (),
    progress: Progress = silent,
) -> Ranking:
    """Rank the blocks of a model by one of the training-free methods of ``phaseprune methods``.

    Args:
        decoder: from ``load_model``.
        chosen_on: a task from ``load_task``, all of whose questions are looked at, or the path of a
            file of plain text (or what ``plain_text.read_windows`` made of it), as the method
            needs; None for those that need neither.
        method: a name in ``methods.METHODS``.
        remove: how many blocks; None for all that may go, one of which stays at least.
        seed: of a random order, of the tokens that CKA is taken over, and of an evolution.
        protect: original indices that are never removed.
        progress: told of each block pass.

    Returns:
        The order, as long as ``remove``, with the score of each block.

    Raises:
        UserError: an unknown method, one without what it needs, protections that leave too few
            blocks, or a model or text that it cannot be measured on.
    """
    found = find_method(method)
    free = free_blocks(decoder, found, protect)
    number = rankings.check_number(len(decoder.blocks), free, remove)
    task, text = _given(decoder, found, chosen_on)
    check_length(found, remove is not None)
    if task is not None:
        check_letters(found.objective, {task.scoring}, None)
    check_measurable(decoder, found, free, number)
    name = None if not found.needs else task.name if task else text.name
    ranking = rank_free(decoder, found, name, task, text, free, number, seed, progress)
    return replace(ranking, remove=remove)


def free_blocks(decoder: Decoder, method: Method, protect: Collection[int]) -> tuple[int, ...]:
    """The blocks that a method may remove, in order of their index.

    Args:
        decoder: the model.
        method: with protections of its own, maybe.
        protect: original indices that are never removed.

    Raises:
        UserError: an index that the model does not have, or nothing is left to remove.
    """
    blocks = len(decoder.blocks)
    rankings.removable(blocks, frozenset(protect))
    protected = frozenset(protect) | method.protected(blocks)
    if len(protected) >= blocks:
        first, last = method.ends
        raise UserError(
            f"method {method.name} keeps the first {first} and the last {last} blocks, and of the "
            f"model's {blocks} nothing is left to remove; protect fewer or choose another method"
        )
    return rankings.removable(blocks, protected)


def check_measurable(decoder: Decoder, method: Method, free: tuple[int, ...], number: int) -> None:
    """Refuse, before anything is paid for, what a method cannot be measured on.

    Raises:
        UserError: no gradients of this model, weights that cannot be merged, or no window of so
            many blocks is free.
    """
    if GRADIENTS in method.needs:
        check_gradients(decoder)
    if method.merges:
        check_merges(decoder, number, frozenset(range(len(decoder.blocks))) - frozenset(free))
    if method.measure == "window":
        rankings.window_scores(np.zeros((len(decoder.blocks) + 1,) * 2), number, free)


def rank_free(
    decoder: Decoder,
    method: Method,
    chosen_on: str | None,
    task: Task | None,
    text: PlainText | None,
    free: tuple[int, ...],
    number: int,
    seed: int,
    progress: Progress = silent,
) -> Ranking:
    """Rank some blocks: ``rank_blocks`` once all is checked.

    Args:
        decoder: the model.
        method: of the registry.
        chosen_on: what its questions or its text are called.
        task: the questions; None where it looks at text or at nothing.
        text: the text; None likewise.
        free: from ``free_blocks``.
        number: how many of them are to go.
        seed: see ``rank_blocks``.
        progress: told of each block pass.
    """
    found = MEASURES[method.measure](
        Work(decoder, method, task, text, free, number, seed, progress)
    )
    return Ranking(
        method=method.name,
        model=decoder.name,
        chosen_on=chosen_on,
        remove=number,
        seed=seed,
        protect=tuple(block for block in range(len(decoder.blocks)) if block not in free),
        **found._replace(order=found.order[:number])._asdict(),
    )


def _given(
    decoder: Decoder, method: Method, chosen_on: Task | PlainText | str | Path | None
) -> tuple[Task | None, PlainText | None]:
    """The questions or the text that a method is given.

    Raises:
        UserError: not what it needs.
    """
    need = method.needs[0] if method.needs else None
    task = chosen_on if isinstance(chosen_on, Task) else None
    if need is None:
        return None, None
    if need == EITHER and chosen_on is None:
        raise UserError(
            f"method {method.name} looks at hidden states; give it questions (a task) or the path "
            "of a file of plain text"
        )
    if need == QUESTIONS and task is None:
        raise UserError(f"method {method.name} chooses by questions; give it a task")
    if need == TEXT and (chosen_on is None or task is not None):
        gradients = " and gradients through the model" if GRADIENTS in method.needs else ""
        raise UserError(
            f"method {method.name} needs plain text{gradients}; give it the path of a file of text"
        )
    if task is not None or isinstance(chosen_on, PlainText):
        return task, None if task else chosen_on
    return None, read_windows(decoder, chosen_on)
