"""What is left of a model beyond its answers: loss on text, greedy continuations, repetition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from phaseprune.decision.intervals import bootstrap_mean, percentiles, resamples

#: Tokens of the pieces that are looked for a second time in a continuation.
PIECE = 4


def common_prefix(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """``[N]`` tokens before the first difference of ``[N, T]`` continuations; T where none is."""
    return np.cumprod(np.equal(first, second), axis=1).sum(axis=1)


def repetition(continuations: np.ndarray, piece: int = PIECE) -> np.ndarray:
    """``[N]`` shares of pieces of so many tokens that stood in the same continuation before.

    Args:
        continuations: ``[N, T]`` tokens, T >= ``piece``.
        piece: n of the n-grams.
    """
    pieces = np.lib.stride_tricks.sliding_window_view(continuations, piece, axis=1)
    count = pieces.shape[1]
    return np.array([1 - len({tuple(p) for p in row}) / count for row in pieces.tolist()])


def guard_figures(
    losses: np.ndarray,
    continuations: np.ndarray,
    full: Mapping[str, Any] | None,
    seed: int,
) -> dict[str, Any]:
    """The ``guard`` of a line of ``steps.jsonl``: a model beside the full one, with 95 % intervals.

    Every comparison is in pairs: the same windows and the same prompts of both models are drawn
    together in each bootstrap resample.

    Args:
        losses: ``[W]`` mean -log p a token, in nats, of each window.
        continuations: ``[N, T]`` greedy tokens behind each prompt.
        full: the full model's figures, from this function; None if these are the full model's.
        seed: of the bootstrap.

    Returns:
        ``text_loss``; ``text_loss_rise``, as a share of the full model's loss; ``agreement``, the
        share of tokens equal to the full model's, and ``agreement_up_to``, of the first 1, 2, … T
        positions alone; ``common_prefix`` in tokens; ``repetition`` and ``repetition_rise``, the
        difference to the full model's; each but ``agreement_up_to`` with ``_ci``; and ``losses``
        and ``continuations``, which later models are compared with.
    """
    losses, continuations = np.asarray(losses, dtype=float), np.asarray(continuations)
    full_losses = losses if full is None else np.asarray(full["losses"])
    full_tokens = continuations if full is None else np.asarray(full["continuations"])
    equal = np.equal(continuations, full_tokens)
    up_to = np.cumsum(equal.mean(axis=0)) / np.arange(1, equal.shape[1] + 1)
    found: dict[str, Any] = {}
    for name, values in _by_sample(losses, continuations, full_tokens).items():
        found |= {name: float(values.mean()), f"{name}_ci": bootstrap_mean(values, seed).tolist()}
    rises = np.concatenate(
        [(w @ losses) / (w @ full_losses) - 1 for w in resamples(len(losses), seed)]
    )
    return found | {
        "text_loss_rise": float(losses.mean() / full_losses.mean() - 1),
        "text_loss_rise_ci": percentiles(rises).tolist(),
        "agreement_up_to": up_to.tolist(),
        "losses": losses.tolist(),
        "continuations": continuations.tolist(),
    }


def _by_sample(
    losses: np.ndarray, continuations: np.ndarray, full_tokens: np.ndarray
) -> dict[str, np.ndarray]:
    """Figures that are plain means: the first ``[W]`` by window, the others ``[N]`` by prompt."""
    repeated = repetition(continuations)
    return {
        "text_loss": losses,
        "agreement": np.equal(continuations, full_tokens).mean(axis=1),
        "common_prefix": common_prefix(continuations, full_tokens),
        "repetition": repeated,
        "repetition_rise": repeated - repetition(full_tokens),
    }


def drawn_figures(
    guards: Sequence[Mapping[str, Any]], full: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """The figures of models that were drawn, as means over them: like ``short_figures``.

    Each bootstrap resample draws windows or prompts, the same for all models, and models (Owen
    2007, as for retained accuracy).

    Args:
        guards: of S models, from ``guard_figures``.
        full: of the full model.
        seed: of the bootstrap.
    """
    full_losses, full_tokens = np.asarray(full["losses"]), np.asarray(full["continuations"])
    losses = np.array([one["losses"] for one in guards])
    tokens = [np.array(one["continuations"]) for one in guards]
    samples = [_by_sample(*both, full_tokens) for both in zip(losses, tokens, strict=True)]
    count = len(guards)

    def interval(by_model: np.ndarray) -> list[float]:
        """From ``[draws, S]`` figures of resampled windows or prompts."""
        rng = np.random.default_rng([seed, 1])
        chosen = rng.multinomial(count, np.full(count, 1 / count), size=len(by_model)) / count
        return percentiles((by_model * chosen).sum(axis=1)).tolist()

    found: dict[str, Any] = {}
    for name in samples[0]:
        values = np.array([one[name] for one in samples], dtype=float)
        weights = np.concatenate(list(resamples(values.shape[1], seed)))
        found |= {name: float(values.mean()), f"{name}_ci": interval(weights @ values.T)}
    weights = np.concatenate(list(resamples(len(full_losses), seed)))
    rises = weights @ losses.T / (weights @ full_losses)[:, None] - 1
    return found | {
        "text_loss_rise": float(losses.mean() / full_losses.mean() - 1),
        "text_loss_rise_ci": interval(rises),
        "guessing": full["guessing"],
    }


def short_figures(guard: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The figures of a guard without what is of single windows, prompts or positions."""
    if guard is None:
        return None
    left_out = ("losses", "continuations", "agreement_up_to")
    return {name: value for name, value in guard.items() if name not in left_out}
