"""Plain text as rows: windows of tokens, each scored at all of its positions (SLEB's criterion)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from phaseprune.decoder.decoder import Decoder
from phaseprune.errors import UserError
from phaseprune.sweep.memory import batch_tokens, shard_tokens
from phaseprune.sweep.probe import packed_length
from phaseprune.sweep.rows import Rows, lay_out


def read_text_file(path: str | Path | None = None) -> tuple[str, str]:
    """A plain text and the sha256 of its file.

    Args:
        path: a file in UTF-8; by default the bundled text.

    Raises:
        UserError: a file that is not there, or no text.
    """
    place = Path(str(files("phaseprune.demo") / "text.txt")) if path is None else Path(path)
    try:
        content = place.read_bytes()
        return content.decode("utf-8"), hashlib.sha256(content).hexdigest()
    except OSError:
        raise UserError(f"--text {path}: there is no such file that can be read") from None
    except UnicodeDecodeError:
        raise UserError(f"--text {path} is not UTF-8 text; convert it first") from None


def text_windows(
    decoder: Decoder, text: str, length: int, count: int | None = None, skip: int = 0
) -> list[list[int]]:
    """Neighbouring windows of a text's tokens.

    Args:
        decoder: for its tokenizer.
        text: plain text.
        length: tokens of a window, at least 2.
        count: how many windows from the beginning; None for all that are full.
        skip: tokens before the first window.

    Raises:
        UserError: the text has fewer full windows, or the model takes no windows so long.
    """
    most = decoder.max_length
    if length < 2 or (most is not None and length > most):
        raise UserError(
            f"windows of {length} tokens: the model takes 2 to {most or 'any number of'} tokens"
        )
    tokens = decoder.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    behind = f" behind the first {skip:,}" if skip else ""
    tokens = tokens[skip:]
    windows = [tokens[i : i + length] for i in range(0, len(tokens) - length + 1, length)]
    if not windows or (count is not None and len(windows) < count):
        raise UserError(
            f"the text has {len(tokens):,} tokens{behind}, which are {len(windows)} windows of "
            f"{length}, and {count or 1} are needed; give a longer text or shorter windows"
        )
    return windows[:count]


def text_rows(decoder: Decoder, windows: Sequence[Sequence[int]]) -> Rows:
    """Rows whose scores ``[W, 1]`` are each window's log-likelihood (without its first token)."""
    put = [
        [
            (
                tuple(window[:-1]),
                [(place, window[place + 1], slot) for place in range(len(window) - 1)],
            )
        ]
        for slot, window in enumerate(windows)
    ]
    return lay_out(
        put,
        np.ones(len(windows), dtype=int),
        np.ones(len(windows), dtype=int),
        batch_tokens(decoder),
        decoder.device,
        packed_length(decoder),
        shard_tokens(decoder),
    )


def vocabulary_size(decoder: Decoder) -> int:
    """How many tokens the model tells apart."""
    return decoder.model.get_input_embeddings().weight.shape[0]


def guessing_loss(decoder: Decoder) -> float:
    """The loss a token, in nats, of taking all tokens of the vocabulary for equally likely."""
    return float(np.log(vocabulary_size(decoder)))
