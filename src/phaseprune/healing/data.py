"""What is trained on: questions or windows of text, as rows of tokens by their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from phaseprune.decoder.decoder import Decoder
from phaseprune.errors import UserError
from phaseprune.questions.encode import EncodedQuestion
from phaseprune.questions.question import Task
from phaseprune.sweep.measure import encode_inputs
from phaseprune.sweep.memory import batch_tokens
from phaseprune.sweep.rows import Rows, Shard, lay_out, make_rows
from phaseprune.sweep.text import text_windows

#: Tokens of a window of plain text, where the model takes so many.
WINDOW = 256
#: The validation split is at most this share of the material.
VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class Part:
    """Rows that are run together, and what their loss needs beside the logits.

    Attributes:
        shard: the rows, what is read off them and where that is added.
        times: ``[N]`` how many different sequences (a question and one option) each read stands
            in: more than 1 only in packed rows,
        examples: ``[n]`` which examples of the batch stand here,
        gold: ``[n]`` their right options,
        scale: ``[n, K]`` what their options' scores are multiplied by, NaN where one is absent;
            the last three are empty for text.
    """

    shard: Shard
    times: torch.Tensor
    examples: torch.Tensor
    gold: torch.Tensor
    scale: torch.Tensor


@dataclass(frozen=True)
class Material:
    """Everything that may be trained on.

    Attributes:
        questions: encoded questions; with permuted options each order is an example of its own.
        gold: ``[N]`` their right options.
        names: ``[N]`` their ids.
        windows: or windows of plain text.
        vocabulary: whether scores are log-probabilities over the vocabulary, else plain logits.
        given: whether the probability of an option is the vocabulary's own.
        packed_length: the most tokens of a sequence in a packed row of questions; longer ones,
            and windows, are plain rows (``heal.packed``).
    """

    questions: tuple[EncodedQuestion, ...] = ()
    gold: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    windows: tuple[tuple[int, ...], ...] = ()
    vocabulary: bool = True
    given: bool = False
    packed_length: int = 0

    def __len__(self) -> int:
        return len(self.questions) or len(self.windows)

    def parts(self, decoder: Decoder, numbers: Sequence[int]) -> Iterator[Part]:
        """The examples of a batch, in parts of as many tokens as a block is given at once."""
        rows = self._rows(decoder, numbers)
        width = rows.shape[1]
        for shard in rows.shards:
            examples = torch.unique(shard.entry_slots // width).cpu()
            chosen = [numbers[i] for i in examples.tolist()]
            if self.windows:
                none = torch.empty(0)
                times = torch.ones(shard.reads, device=decoder.device)
                yield Part(shard, times, examples, none, none)
                continue
            scale = np.full((len(chosen), width), np.nan)
            for row, number in enumerate(chosen):
                units = np.asarray(self.questions[number].units, dtype=float)
                scale[row, : len(units)] = units.mean() / units
            yield Part(
                shard,
                self._times(shard, numbers, width),
                examples.to(decoder.device),
                torch.tensor([self.gold[number] for number in chosen], device=decoder.device),
                torch.as_tensor(scale, dtype=torch.float32, device=decoder.device),
            )

    def tokens(self, decoder: Decoder, numbers: Sequence[int]) -> int:
        """Tokens that are run for the examples of a batch, without padding."""
        return self._rows(decoder, numbers).tokens

    def _times(self, shard: Shard, numbers: Sequence[int], width: int) -> torch.Tensor:
        """Counted as in plain rows, where equal sequences are one row."""
        standing = set()
        entries = zip(shard.entry_reads.tolist(), shard.entry_slots.tolist(), strict=True)
        for read, slot in entries:
            question = self.questions[numbers[slot // width]]
            standing.add((read, question.context + question.continuations[slot % width][:-1]))
        times = np.bincount([read for read, _ in standing], minlength=shard.reads)
        return torch.tensor(times, dtype=torch.float32, device=shard.entry_reads.device)

    def _rows(self, decoder: Decoder, numbers: Sequence[int]) -> Rows:
        most = batch_tokens(decoder)
        if self.questions:
            chosen = [self.questions[number] for number in numbers]
            return make_rows(chosen, most, decoder.device, self.packed_length, None, most)
        put = [
            [(window[:-1], [(i, window[i + 1], slot) for i in range(len(window) - 1)])]
            for slot, window in enumerate(self.windows[number] for number in numbers)
        ]
        ones = np.ones(len(numbers), dtype=int)
        return lay_out(put, ones, ones, most, decoder.device, 0, most)


def question_material(decoder: Decoder, task: Task) -> Material:
    """The questions of a task as they are put to a model."""
    inputs = encode_inputs(task, decoder.tokenizer, decoder.max_length)
    gold = [list(order).index(task.questions[n].answer) for n, order in inputs.orders]
    on_vocabulary = task.probability == "vocabulary"
    return Material(
        tuple(inputs.questions),
        tuple(gold),
        tuple(task.questions[number].id for number, _ in inputs.orders),
        vocabulary=task.scoring == "text" or on_vocabulary,
        given=on_vocabulary,
    )


def text_material(decoder: Decoder, text: str) -> Material:
    """Neighbouring windows of a text."""
    length = min(WINDOW, decoder.max_length or WINDOW)
    return Material(windows=tuple(map(tuple, text_windows(decoder, text, length))))


def validation_split(material: Material, seed: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the examples to train on, and of the validation split.

    Args:
        material: all examples.
        seed: which ones.
        most: in the validation split.

    Raises:
        UserError: there are too few for both.
    """
    total = len(material)
    if total < 2:
        raise UserError(
            f"there is {total} example to train on and one more must be held out for early "
            "stopping; give more training questions or a longer text"
        )
    count = min(most, max(1, int(total * VALIDATION_SHARE)))
    order = np.random.default_rng([seed, 0]).permutation(total)
    return np.sort(order[count:]), np.sort(order[:count])


def batch_numbers(train: np.ndarray, size: int, step: int, seed: int) -> np.ndarray:
    """The examples of a step: each is seen once before any is seen again.

    A function of the seed and the step alone, so that a run that goes on needs no generator's
    state.
    """
    first = step * size
    numbers = []
    for place in range(first, first + size):
        epoch, position = divmod(place, len(train))
        if not numbers or position == 0:
            order = np.random.default_rng([seed, 1, epoch]).permutation(train)
        numbers.append(order[position])
    return np.array(numbers)
