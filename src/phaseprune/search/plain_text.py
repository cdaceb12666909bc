"""Plain text to choose blocks by: the language-model loss on windows of it (SLEB's criterion)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phaseprune.decoder.decoder import Decoder
from phaseprune.errors import UserError
from phaseprune.sweep.rows import Rows
from phaseprune.sweep.text import text_rows, text_windows

#: Tokens of a window, if the model takes as many, and the most windows that are used.
WINDOW, WINDOWS = 512, 16


@dataclass(frozen=True)
class PlainText:
    """Windows of a text, laid out, and what says which text it is."""

    windows: Sequence[Sequence[int]]
    rows: Rows
    identity: dict[str, Any]


def read_text(decoder: Decoder, path: str | Path | None, objective: str) -> PlainText | None:
    """The text that an objective needs; None where it needs none.

    Args:
        decoder: the model.
        path: a file of plain text (UTF-8); its beginning is used.
        objective: what candidates are judged by.

    Raises:
        UserError: a text without need or none where one is needed, or a file that is not there, no
            text, or too short.
    """
    if objective != "text_loss":
        if path is not None:
            raise UserError(
                f"--text {path} goes with --objective text_loss only; add that or leave it out"
            )
        return None
    if path is None:
        raise UserError("--objective text_loss needs a text: name a file of plain text with --text")
    try:
        content = Path(path).read_bytes()
        text = content.decode("utf-8")
    except OSError:
        raise UserError(f"--text {path}: there is no such file that can be read") from None
    except UnicodeDecodeError:
        raise UserError(f"--text {path} is not UTF-8 text; convert it first") from None
    length = min(WINDOW, decoder.max_length or WINDOW)
    windows = text_windows(decoder, text, length)[:WINDOWS]
    identity = {
        "text_fingerprint": hashlib.sha256(content).hexdigest(),
        "text_windows": len(windows),
        "text_window_tokens": length,
    }
    return PlainText(windows, text_rows(decoder, windows), identity)
