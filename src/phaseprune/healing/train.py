"""The training loop: seeded, saved every so many steps, ended early by a validation split."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.trainable import repeatable, trained_weights
from phaseprune.errors import UserError
from phaseprune.healing.data import Material, Part, batch_numbers, validation_split
from phaseprune.healing.losses import Loss, distill_loss, task_loss, text_loss, weight
from phaseprune.healing.packed import part_logits, trained_length
from phaseprune.healing.recipe import Recipe
from phaseprune.healing.state import State, load_state, save_state
from phaseprune.progress import Progress, silent
from phaseprune.sweep.probe import ANY_LENGTH

#: Packed rows are run if they have at most this share of the tokens of a batch's plain rows.
WORTH_PACKING = 2 / 3
#: Gradients are scaled down to this norm.
CLIP = 1.0


@dataclass(frozen=True)
class Trainer:
    """What one training run works with.

    Attributes:
        decoder: the pruned model, made trainable.
        material: what to train on.
        recipe: how.
        dtype: what the model runs in; weights that are trained whole are kept in float32.
        teacher: the full model, for distillation.
    """

    decoder: Decoder
    material: Material
    recipe: Recipe
    dtype: torch.dtype
    teacher: Decoder | None = None

    def packed(self) -> Trainer:
        """The same with packed rows, where they save tokens of questions and are exact here."""
        material, first = self.material, range(min(self.recipe.batch, len(self.material)))
        if not material.questions:
            return self
        shared = replace(material, packed_length=ANY_LENGTH).tokens(self.decoder, first)
        if shared > WORTH_PACKING * material.tokens(self.decoder, first):
            return self
        length = trained_length(self.decoder, self.teacher, self.dtype)
        return replace(self, material=replace(material, packed_length=length))

    def loss(self) -> Loss:
        """The recipe's loss."""
        if self.recipe.objective == "task":
            return task_loss(self.material)
        if self.recipe.objective == "text":
            return text_loss
        return distill_loss(lambda part: part_logits(self.teacher, part, self.dtype))


def train(
    trainer: Trainer,
    state_path: Path,
    progress: Progress = silent,
    label: str = "healing",
) -> State:
    """Train, or go on with training; the decoder is left with the best weights.

    Args:
        trainer: what to work with.
        state_path: where the state is kept.
        progress: told of each step.
        label: for ``progress``.

    Returns:
        The state at the end.

    Raises:
        UserError: too few examples, a damaged state, or a loss that is not finite.
    """
    recipe, decoder = trainer.recipe, trainer.decoder
    learning, validation = validation_split(trainer.material, recipe.seed, recipe.validation)
    weights = trained_weights(decoder)
    optimizer = torch.optim.AdamW(weights.values(), lr=recipe.peak, weight_decay=0.0)
    loss = trainer.loss()
    began = time.perf_counter()
    with repeatable(decoder):
        # Before a state is read: a run that goes on must find what it found at its beginning.
        trainer = trainer.packed()
        state = load_state(state_path)
        if state is None:
            state = State()
            _evaluate(trainer, state, weights, loss, validation, [])
        else:
            _put(weights, state.weights)
            optimizer.load_state_dict(state.optimizer)
        spent, losses = state.seconds, []
        while state.stopped_by is None:
            step = state.step
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate(step)
            numbers = batch_numbers(learning, recipe.batch, step, recipe.seed)
            losses.append(_step(trainer, weights, optimizer, loss, numbers))
            state.step += 1
            state.seconds = spent + time.perf_counter() - began
            progress(label, state.step, recipe.steps)
            late = recipe.minutes is not None and state.seconds >= 60 * recipe.minutes
            if state.step % recipe.between and state.step < recipe.steps and not late:
                continue
            _evaluate(trainer, state, weights, loss, validation, losses)
            losses = []
            state.stopped_by = _reason(recipe, state, late)
            state.weights = _copy(weights)
            state.optimizer = optimizer.state_dict()
            save_state(state_path, state)
    _put(weights, state.best)
    return state


def _reason(recipe: Recipe, state: State, late: bool) -> str | None:
    """Why training ends here; None where it goes on."""
    if state.step >= recipe.steps:
        return f"all {recipe.steps} steps are done"
    best = min(range(len(state.evaluations)), key=lambda i: state.evaluations[i]["validation"])
    waited = len(state.evaluations) - 1 - best
    if waited >= recipe.patience:
        return (
            f"no better validation loss for {waited} evaluations (early stopping at step "
            f"{state.step})"
        )
    return f"the {recipe.minutes:g} minutes are over (at step {state.step})" if late else None


def _step(
    trainer: Trainer,
    weights: dict,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    numbers: np.ndarray,
) -> float:
    """One optimiser step; gives the loss of its batch."""
    objective = trainer.recipe.objective
    parts = list(trainer.material.parts(trainer.decoder, numbers))
    total = sum(weight(objective, part) for part in parts)
    optimizer.zero_grad(set_to_none=True)
    value = 0.0
    for part in parts:
        mean = loss(part, part_logits(trainer.decoder, part, trainer.dtype)) / total
        _refuse_not_finite(trainer, part, mean, numbers)
        mean.backward()
        value += float(mean.detach())
    torch.nn.utils.clip_grad_norm_(weights.values(), CLIP)
    optimizer.step()
    return value


@torch.no_grad()
def _evaluate(
    trainer: Trainer,
    state: State,
    weights: dict,
    loss: Loss,
    validation: np.ndarray,
    losses: Sequence[float],
) -> None:
    """Measure the validation loss, and keep the weights if it is the least so far."""
    objective, total, value = trainer.recipe.objective, 0, 0.0
    for part in trainer.material.parts(trainer.decoder, validation):
        found = loss(part, part_logits(trainer.decoder, part, trainer.dtype))
        _refuse_not_finite(trainer, part, found, validation)
        value += float(found)
        total += weight(objective, part)
    value /= total
    before = min((one["validation"] for one in state.evaluations), default=float("inf"))
    if value < before:
        state.best, state.best_step = _copy(weights), state.step
    state.evaluations.append(
        {
            "step": state.step,
            "training": float(np.mean(losses)) if losses else None,
            "validation": value,
        }
    )


def _refuse_not_finite(
    trainer: Trainer, part: Part, value: torch.Tensor, numbers: Sequence[int]
) -> None:
    if torch.isfinite(value):
        return
    number, names = int(numbers[int(part.examples[0])]), trainer.material.names
    where = f"question {names[number]!r}" if names else f"window {number} of the text"
    raise UserError(
        f"{trainer.decoder.name}: the loss is NaN or infinite in the part that begins with "
        f"{where}; give a smaller --lr, or --dtype=float32"
    )


def _copy(weights: dict[str, torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    return {name: weight.detach().cpu().clone() for name, weight in weights.items()}


@torch.no_grad()
def _put(weights: dict[str, torch.nn.Parameter], values: dict[str, torch.Tensor]) -> None:
    for name, parameter in weights.items():
        parameter.copy_(values[name])
