"""Guards: whether a model without some blocks can still do more than choose an option.

Accuracy on questions can stay while generation breaks (arXiv 2602.01997).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from phaseprune.decision.guards import PIECE, guard_figures
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.export import check_removal
from phaseprune.decoder.greedy import cached_tokens, greedy_tokens
from phaseprune.errors import UserError
from phaseprune.progress import Progress, silent
from phaseprune.sweep.memory import batch_tokens, state_budget
from phaseprune.sweep.rows import Rows
from phaseprune.sweep.text import (
    guessing_loss,
    read_text_file,
    text_rows,
    text_windows,
    vocabulary_size,
)
from phaseprune.sweep.walk import trace_scores

#: Fewer windows of a text than these say too little of it.
LEAST_WINDOWS = 8
#: The most that the logits of one forward may take.
LOGIT_BYTES = 2**28


@dataclass(frozen=True)
class Guard:
    """How much of a text is looked at.

    Attributes:
        windows: the most windows of text whose loss is measured.
        window_tokens: of a window, if the model takes as many.
        prompts: how many pieces of the text are continued.
        prompt_tokens: of a prompt.
        tokens: of a continuation; both are half of what the model takes where that is less.

    Raises:
        UserError: a number too small for what is done with it.
    """

    windows: int = 64
    window_tokens: int = 128
    prompts: int = 32
    prompt_tokens: int = 32
    tokens: int = 32

    def __post_init__(self):
        least = {
            "windows": 2,
            "window_tokens": 2,
            "prompts": 2,
            "prompt_tokens": 1,
            "tokens": PIECE,
        }
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise UserError(
                    f"guard: {name} is {getattr(self, name)} and must be at least {smallest}"
                )


@dataclass(frozen=True)
class TextGuard:
    """The windows and prompts of one text, ready to be measured on.

    Attributes:
        decoder: the model.
        windows: tokens of each window.
        rows: the windows as rows.
        prompts: ``[N, P]`` tokens.
        tokens: of a continuation.
        seed: of the intervals.
        identity: what says which text, how much of it, and which part.
    """

    decoder: Decoder
    windows: Sequence[Sequence[int]]
    rows: Rows
    prompts: np.ndarray
    tokens: int
    seed: int
    identity: dict[str, Any]

    def figures(
        self,
        removed: Collection[int] = (),
        full: Mapping[str, Any] | None = None,
        similar: Mapping[str, Any] | None = None,
        progress: Progress = silent,
        label: str = "guard",
    ) -> dict[str, Any]:
        """The figures of the model without some blocks (``decision.guards.guard_figures``).

        With ``guessing``, the loss of taking all tokens of the vocabulary for equally likely.

        Args:
            removed: original indices.
            full: the full model's figures; None if these are the full model's.
            similar: of the model that is most like this one; changes the work alone.
            progress: told of block passes and tokens.
            label: for ``progress``.

        Raises:
            UserError: the model gives NaN.
        """
        raw = trace_scores(
            self.decoder,
            self.rows,
            True,
            removed=removed,
            output_only=True,
            progress=progress,
            label=f"{label}: text",
        )
        rows = _rows_at_once(self.decoder, self.prompts.shape[1] + self.tokens)
        guess = cached_tokens(
            self.decoder,
            self.prompts,
            self.tokens,
            removed=removed,
            rows=rows,
            progress=progress,
            label=f"{label}: continuations, guessed",
        )
        if guess is None and (similar or full):
            guess = np.array((similar or full)["continuations"])
        continuations = greedy_tokens(
            self.decoder,
            self.prompts,
            self.tokens,
            removed=removed,
            guess=guess,
            rows=rows,
            progress=progress,
            label=f"{label}: continuations",
        )
        losses = -raw[:, 0, 0] / (len(self.windows[0]) - 1)
        figures = guard_figures(losses, continuations, full, self.seed)
        return figures | {"guessing": guessing_loss(self.decoder)}


def open_guard(
    decoder: Decoder,
    guard: Guard | None = None,
    text: str | Path | None = None,
    seed: int = 0,
    skip: int = 0,
) -> TextGuard:
    """Cut windows and prompts out of a text.

    Args:
        decoder: the model.
        guard: how much is cut; by default what ``Guard()`` says.
        text: a file of plain text; by default the bundled one.
        seed: of the choice of prompts, and of the intervals.
        skip: tokens at the text's beginning that are left out, since blocks are chosen by them.

    Raises:
        UserError: a text that cannot be read or is too short.
    """
    guard = guard or Guard()
    content, fingerprint = read_text_file(text)
    most = decoder.max_length or guard.window_tokens + guard.prompt_tokens + guard.tokens
    length = min(guard.window_tokens, most)
    if most < 2 * PIECE:
        raise UserError(f"guard: {decoder.name} takes {most} tokens, too few to continue a text")
    windows = text_windows(decoder, content, length, skip=skip)[: guard.windows]
    least = min(LEAST_WINDOWS, guard.windows)
    if len(windows) < least:
        behind = f" behind the {skip:,} tokens that blocks are chosen by" if skip else ""
        raise UserError(
            f"guard: the text has {len(windows)} windows of {length} tokens{behind}, and {least} "
            "are needed; give a longer one with --text"
        )
    fits = guard.prompt_tokens + guard.tokens <= most
    of_prompt, tokens = (guard.prompt_tokens, guard.tokens) if fits else (most // 2, most // 2)
    stretch = np.concatenate(windows)
    pieces = stretch[: len(stretch) // of_prompt * of_prompt].reshape(-1, of_prompt)
    count = min(guard.prompts, len(pieces))
    chosen = np.sort(np.random.default_rng(seed).choice(len(pieces), count, replace=False))
    identity = {
        "guard_text_fingerprint": fingerprint,
        "guard_text_skipped_tokens": skip,
        "guard_windows": len(windows),
        "guard_window_tokens": length,
        "guard_prompts": count,
        "guard_prompt_tokens": of_prompt,
        "guard_tokens": tokens,
    }
    rows = text_rows(decoder, windows)
    return TextGuard(decoder, windows, rows, pieces[chosen], tokens, seed, identity)


def guard_model(
    decoder: Decoder,
    removed: Sequence[int],
    *,
    text: str | Path | None = None,
    guard: Guard | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Guards of the model without some blocks, beside the full model.

    Args:
        decoder: from ``load_model``.
        removed: original indices of the blocks to do without.
        text: a file of plain text; by default the bundled one.
        guard: how much of it.
        seed: of the prompts and the intervals.
        progress: told of block passes and tokens.

    Returns:
        ``full`` and ``pruned``, each from ``decision.guards.guard_figures``.

    Raises:
        UserError: wrong blocks, or a text that cannot be read or is too short.
    """
    check_removal(removed, len(decoder.blocks))
    opened = open_guard(decoder, guard, text, seed)
    full = opened.figures(progress=progress, label="full model")
    pruned = opened.figures(removed, full, progress=progress, label="pruned model")
    return {"full": full, "pruned": pruned}


def _rows_at_once(decoder: Decoder, length: int) -> int:
    """Rows of one forward, whose logits are of every token of the vocabulary."""
    room = min(LOGIT_BYTES, state_budget(decoder) // 2)
    by_logits = room // (length * vocabulary_size(decoder) * 4)
    return max(1, min(batch_tokens(decoder) // length, by_logits))
