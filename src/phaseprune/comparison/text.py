"""The plain text of a comparison: what methods choose by, and what of it is left for guards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from phaseprune.decoder.decoder import Decoder
from phaseprune.errors import UserError
from phaseprune.methods.judge import text_judge
from phaseprune.methods.plain_text import BUNDLED, PlainText, read_windows
from phaseprune.probes.guards import TextGuard
from phaseprune.progress import Progress
from phaseprune.runs.directory import RunDirectory
from phaseprune.sweep.text import guessing_loss
from phaseprune.sweep.walk import trace_scores

#: In place of a text's path: methods that need text are left out.
NO_TEXT = "none"


@dataclass(frozen=True)
class Reading:
    """A text as ``--text`` asks for it.

    Attributes:
        text: what methods choose by; None for nothing.
        reason: why there is none.
        path: of its file; None for the bundled text.
        skip: tokens at its beginning that guards leave out, since methods choose by them.
    """

    text: PlainText | None
    reason: str = ""
    path: str | Path | None = None
    skip: int = 0


def open_text(decoder: Decoder, text: str | Path | None) -> Reading:
    """Read the text that methods choose by.

    Args:
        decoder: the model.
        text: a file of plain text, ``NO_TEXT``, or None for the bundled text.

    Raises:
        UserError: a file that is not there, no text, or too short.
    """
    if text is not None and str(text) == NO_TEXT:
        return Reading(None, "it needs plain text, and --text none says to do without")
    try:
        found = read_windows(decoder, text)
    except UserError as error:
        if text is not None:
            raise
        return Reading(None, f"it needs plain text, and of {BUNDLED}: {error.typed}")
    return Reading(found, "", text, found.tokens)


def settle_text(
    run: RunDirectory, decoder: Decoder, reading: Reading, needed: bool, progress: Progress
) -> Reading:
    """Hold a text against what the run knows, and keep in the run which one it is.

    The bundled text, which nobody asked for, gives way: to another text that the run's methods
    chose by before, and where the model knows nothing of it.

    Args:
        run: of the comparison.
        decoder: the model.
        reading: from ``open_text``.
        needed: whether a method looks at text.
        progress: told of each block pass.

    Returns:
        The reading, without its text where that gave way.

    Raises:
        UserError: a text was given, and the run looked at another one before.
    """
    asked = reading.path is not None
    if reading.text is None or not (needed or asked):
        return reading
    before = run.manifest["text"]
    told = {"name": reading.text.name, **reading.text.identity}
    if before is not None:
        if _same(before, told):
            return reading
        if asked:
            raise UserError(
                f"{run.path} holds another run: its --text was {_named(before)} and now is "
                f"{_named(told)}; give another --out, or the text of before"
            )
        return replace(
            reading,
            text=None,
            reason=f"it needs plain text, and this run's is {_named(before)}; give it with --text",
        )
    if not asked and (reason := _unknown(run, decoder, reading.text, progress)):
        return replace(reading, text=None, reason=reason)
    run.update(text=told)
    return reading


def settle_guard(run: RunDirectory, reading: Reading, opened: TextGuard | None) -> None:
    """Keep in the run what guards look at.

    Args:
        run: of the comparison.
        reading: from ``open_text``.
        opened: the guards; None where none are asked for.

    Raises:
        UserError: they looked at something else before.
    """
    if opened is None:
        return
    before = run.manifest.get("guard")
    name = BUNDLED if reading.path is None else str(reading.path)
    told = {"name": name, **opened.identity}
    if before is None:
        run.update(guard=told)
        return
    for key, value in opened.identity.items():
        if before.get(key) != value:
            raise UserError(
                f"{run.path} holds another run: of its --guard, {key} was {before.get(key)} and "
                f"now is {value}; give another --out, or --text as before"
            )


def _unknown(
    run: RunDirectory, decoder: Decoder, text: PlainText, progress: Progress
) -> str | None:
    """Why the bundled text says nothing of a model, measured once a run; None where it does."""
    told = run.manifest.get("bundled_text")
    if told is None:
        raw = trace_scores(
            decoder,
            text.rows,
            True,
            output_only=True,
            progress=progress,
            label=f"{BUNDLED}: full model",
        )
        loss = text_judge(decoder, text.windows, text.rows).figures(raw[:, 0])["text_loss"]
        told = {"text_loss": loss, "guessing": guessing_loss(decoder)}
        run.update(bundled_text=told)
    if told["text_loss"] < told["guessing"]:
        return None
    return (
        f"it needs plain text, and on {BUNDLED} the full model's loss, {told['text_loss']:.3f} "
        f"nats a token, is no better than guessing among all tokens ({told['guessing']:.3f}); give "
        "a text that the model knows with --text"
    )


def _same(before: dict[str, Any], told: dict[str, Any]) -> bool:
    return all(before.get(key) == value for key, value in told.items() if key != "name")


def _named(told: dict[str, Any]) -> str:
    name, windows = told.get("name", "a file"), told["text_windows"]
    return f"{name} ({windows} windows, fingerprint {told['text_fingerprint'][:12]})"
