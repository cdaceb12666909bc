"""How many tokens and reads the sides of a task have: all that a cost needs of questions."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from phaseprune.questions.question import Task
from phaseprune.questions.split import split
from phaseprune.replication.settings import Settings
from phaseprune.sweep.measure import Inputs
from phaseprune.sweep.rows import Rows, make_rows


@dataclass(frozen=True)
class Side:
    """Some questions as rows.

    Attributes:
        questions: how many there are.
        tokens: of one stream, with padding.
        reads: positions at which a stream's state is read off.
    """

    questions: int
    tokens: float
    reads: float

    def share(self, questions: float) -> Side:
        """So many questions of average length."""
        part = questions / self.questions
        return Side(round(questions), self.tokens * part, self.reads * part)


@dataclass(frozen=True)
class Sides:
    """The questions that the experiments of a task run.

    Attributes:
        all: the whole task.
        calibration: what blocks are chosen and lenses fitted on.
        others: all that are not calibration questions.
        evaluation: those of them that are reported on.
        probe: those of these that ``perturb`` and ``ablate`` use.
        training: what healing trains on, in plain rows.
        training_known: whether these are the training questions themselves; else questions of the
            task stand in for them.
    """

    all: Side
    calibration: Side
    others: Side
    evaluation: Side
    probe: Side
    training: Side
    training_known: bool = False


def side_of(rows: Rows) -> Side:
    """What a cost needs of rows."""
    return Side(len(rows.options), rows.padded_tokens, sum(shard.reads for shard in rows.shards))


def measure_sides(
    task: Task,
    settings: Settings,
    seed: int,
    inputs: Inputs,
    rows: Rows,
    together: int,
    packed_length: int,
    training: Inputs | None = None,
) -> Sides:
    """Lay out the sides of a task as the experiments do; needs no weights.

    Args:
        task: the questions.
        settings: how many are on which side.
        seed: of the split.
        inputs: all questions of the task as tokens,
        rows: and laid out.
        together: tokens of a batch.
        packed_length: as of ``rows.make_rows``.
        training: training questions as tokens; None lets the task's own stand in.

    Raises:
        UserError: too few questions for the split.
    """
    numbers = {id(question): number for number, question in enumerate(task.questions)}

    def side(some: Task) -> Side:
        chosen = {numbers[id(question)] for question in some.questions}
        return side_of(_rows(_of(inputs, chosen), together, packed_length))

    chosen, others = split(task, settings.calibration, None, seed)
    evaluated = split(task, settings.calibration, settings.evaluation, seed)[1]
    probe = min(settings.probe, len(evaluated.questions))
    probed = split(task, settings.calibration, probe, seed)[1]
    rest, put = side(others), training or inputs
    same = len(evaluated.questions) == len(others.questions)
    return Sides(
        all=side_of(rows),
        calibration=side(chosen),
        others=rest,
        evaluation=rest if same else side(evaluated),
        probe=side(probed),
        training=replace(
            side_of(_rows(put, together, 0)), questions=len(put.questions)
        ),  # each order of permuted options is an example
        training_known=training is not None,
    )


def _of(inputs: Inputs, numbers: Collection[int]) -> Inputs:
    """The inputs of some questions, numbered anew."""
    places = {number: place for place, number in enumerate(sorted(numbers))}
    pairs = [
        (question, (places[number], order))
        for question, (number, order) in zip(inputs.questions, inputs.orders, strict=True)
        if number in places
    ]
    questions, orders = zip(*pairs, strict=True)
    return Inputs(list(questions), list(orders))


def _rows(inputs: Inputs, together: int, packed_length: int) -> Rows:
    return make_rows(inputs.questions, together, "cpu", packed_length, inputs.orders)
