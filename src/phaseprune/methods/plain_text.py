"""Plain text to choose blocks by: the language-model loss on windows of it (SLEB's criterion)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phaseprune.decoder.decoder import Decoder
from phaseprune.errors import UserError
from phaseprune.methods.choice import Choice
from phaseprune.methods.registry import EITHER, TEXT
from phaseprune.questions.question import Task
from phaseprune.sweep.rows import Rows
from phaseprune.sweep.text import read_text_file, text_rows, text_windows

#: Tokens of a window, if the model takes as many, and the most windows that are used.
WINDOW, WINDOWS = 512, 16
#: What the text is called that comes with the package.
BUNDLED = "the bundled text"


@dataclass(frozen=True)
class PlainText:
    """Windows of a text, laid out, what says which text it is, and what it is called."""

    windows: Sequence[Sequence[int]]
    rows: Rows
    identity: dict[str, Any]
    name: str

    @property
    def tokens(self) -> int:
        """Tokens at the beginning of the text that the windows take up."""
        return sum(map(len, self.windows))


def read_text(
    decoder: Decoder, path: str | Path | None, choice: Choice, guarded: bool = False
) -> PlainText | None:
    """The text that blocks are chosen by; None where they are not chosen by any.

    Args:
        decoder: the model.
        path: a file of plain text (UTF-8); its beginning is used.
        choice: what chooses; where that may look at questions or text, it looks at a given text.
        guarded: whether guards look at the text too; at what follows the windows used here, since
            a text that blocks are chosen by flatters the choice.

    Raises:
        UserError: a text without need or none where one is needed, or a file that is not there, no
            text, or too short.
    """
    needs = choice.method.needs
    if path is None and TEXT in needs:
        raise UserError(f"{choice.word} needs a text: name a file of plain text with --text")
    if TEXT in needs or (EITHER in needs and path is not None):
        return read_windows(decoder, path)
    if path is not None and not guarded:
        raise UserError(
            f"--text {path} goes with --objective=text_loss or --guard only, or with a --method "
            "that looks at text; add one of them or leave it out"
        )
    return None


def read_windows(decoder: Decoder, path: str | Path | None) -> PlainText:
    """The first windows of a text, laid out.

    Args:
        decoder: the model.
        path: a file; None for the first half of the bundled text, which is short: the other half
            is left to guards, since a text that blocks are chosen by flatters the choice.

    Raises:
        UserError: a file that is not there, no text, or too short.
    """
    text, fingerprint = read_text_file(path)
    length = min(WINDOW, decoder.max_length or WINDOW)
    windows = text_windows(decoder, text, length)
    windows = windows[: WINDOWS if path is not None else min(WINDOWS, max(1, len(windows) // 2))]
    identity = {
        "text_fingerprint": fingerprint,
        "text_windows": len(windows),
        "text_window_tokens": length,
    }
    name = BUNDLED if path is None else str(path)
    return PlainText(windows, text_rows(decoder, windows), identity, name)


def looked_at(choice: Choice, task: Task, text: PlainText | None) -> str | None:
    """What blocks are chosen on, in words; None for nothing but the model."""
    if not choice.method.needs:
        return None
    count, unit, of = len(task.questions), "calibration question", ""
    if text is not None:
        count, unit, of = len(text.windows), "window", " of plain text"
    return f"{count} {unit}{'' if count == 1 else 's'}{of}"
