"""Reads what a run directory holds, finished or not, and says what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phaseprune.errors import UserError
from phaseprune.runs.folders import PRUNE_TASKS

_TRACE_KEYS = (
    "model",
    "task",
    "blocks",
    "readouts",
    "decision_margin",
    "accuracy",
    "option_labels",
    "option_frequency",
    "gold_frequency",
    "chance",
    "transition",
)
_STEP_KEYS = (
    "step",
    "removed",
    "calibration",
    "evaluation",
    "retained",
    "collapsed",
    "phase",
    "decision_margin_by_readout",
    "block_passes",
    "seconds",
)


@dataclass(frozen=True)
class RunFiles:
    """What a run directory holds.

    Attributes:
        path: the directory.
        manifest: the content of `manifest.json`, empty without one.
        trace: the content of `trace.json`, or None.
        steps: the lines of `steps.jsonl` of a single task, maybe none.
    """

    path: Path
    manifest: Mapping[str, Any]
    trace: Mapping[str, Any] | None
    steps: Sequence[Mapping[str, Any]]

    @property
    def result(self) -> Mapping[str, Any] | None:
        """The result of a finished pruning run on a single task, else None."""
        result = self.manifest.get("result") or {}
        return result if self.steps and "chosen_step" in result else None


def read_run(run_dir: str | Path) -> RunFiles:
    """Read the files of a run directory.

    Args:
        run_dir: The directory. It may hold a trace alone, or a run that is not finished.

    Returns:
        What it holds.

    Raises:
        UserError: There is no such directory, no run in it, or a file in it cannot be read.
    """
    run = Path(run_dir)
    if not run.is_dir():
        what = "is a file, not a run directory" if run.exists() else "does not exist"
        raise UserError(f"{run} {what}; give the directory that was named with --out.")
    manifest = read_json(run / "manifest.json", ())
    trace = read_json(run / "trace.json", _TRACE_KEYS)
    # Of several tasks the steps have other figures, and the page of these reads them.
    several = (manifest or {}).get("command") == PRUNE_TASKS
    steps = [] if several else _read_steps(run / "steps.jsonl")
    if manifest is None and trace is None and not steps:
        raise UserError(
            f"{run} holds no run (no manifest.json, trace.json or steps.jsonl); "
            "give the directory that was named with --out."
        )
    if trace is not None:
        _check_lengths(run / "trace.json", trace)
    return RunFiles(run, manifest or {}, trace, steps)


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {path} ({error}); run the command again.") from error


def read_json(path: Path, keys: tuple[str, ...]) -> dict[str, Any] | None:
    """Read a JSON object that must have some keys.

    Args:
        path: The file.
        keys: What it must hold.

    Returns:
        The object; None where there is no such file.

    Raises:
        UserError: It cannot be read, is no JSON object, or lacks a key.
    """
    text = _read_text(path)
    return None if text is None else _parse(path, text, keys)


def _parse(where: object, text: str, keys: tuple[str, ...]) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UserError(f"{where} is not JSON ({error}); run the command again.") from error
    if not isinstance(value, dict):
        raise UserError(f"{where} is not a JSON object; run the command again.")
    missing = [key for key in keys if key not in value]
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)}; run the command again.")
    return value


def _read_steps(path: Path) -> list[dict[str, Any]]:
    """Read every whole line; a last line without its end is still being written."""
    text = _read_text(path) or ""
    whole = text[: text.rfind("\n") + 1]
    return [
        _parse(f"{path} line {number}", line, _STEP_KEYS)
        for number, line in enumerate(whole.splitlines(), start=1)
        if line.strip()
    ]


def _check_lengths(path: Path, trace: Mapping[str, Any]) -> None:
    series = {"readouts": trace["readouts"], "option_frequency": trace["option_frequency"]}
    for name in ("decision_margin", "accuracy"):
        series |= {
            f"{name}.{part}": trace[name].get(part) for part in ("mean", "ci_low", "ci_high")
        }
    for name, values in series.items():
        if not isinstance(values, list) or len(values) != trace["blocks"] + 1:
            raise UserError(
                f"{path} should hold {trace['blocks'] + 1} values of {name}, one a readout; "
                "run the command again."
            )
