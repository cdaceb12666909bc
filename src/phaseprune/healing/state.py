"""The state of a training run on disk: written whole, so that a killed run goes on from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from phaseprune.errors import UserError
from phaseprune.runs.atomic import write_with


@dataclass
class State:
    """Where training stands.

    The batches follow from the seed and the step, and nothing else in training is random, so there
    is no generator's state to keep.

    Attributes:
        step: optimiser steps done.
        weights: what is trained, by name.
        optimizer: AdamW's own state.
        best: the weights with the least validation loss so far, and ``best_step`` theirs.
        evaluations: one entry each: step, loss of training since the last one, validation loss.
        seconds: spent on training so far.
        stopped_by: why training ended; None while it goes on.
    """

    step: int = 0
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    best_step: int = 0
    evaluations: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    stopped_by: str | None = None


def save_state(path: Path, state: State) -> None:
    """Write the state under a temporary name and rename it."""
    write_with(path, lambda temporary: torch.save(vars(state), temporary))


def load_state(path: Path) -> State | None:
    """The state, on the CPU; None where there is none yet.

    Raises:
        UserError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        return State(**torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # noqa: BLE001 - a damaged archive raises anything
        raise UserError(
            f"{path} is damaged ({type(error).__name__}); delete it, and the same command begins "
            "this model anew"
        ) from None
