"""Where the figures of a run come from: what is needed to trust and to repeat them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def provenance_rows(
    manifest: Mapping[str, Any],
    trace: Mapping[str, Any] | None,
    result: Mapping[str, Any] | None,
) -> list[tuple[str, str]]:
    """List the provenance of a run; what the run does not hold is left out.

    Args:
        manifest: The content of `manifest.json`, or an empty mapping.
        trace: The content of `trace.json`, or None.
        result: The result of a finished prune run, or None.

    Returns:
        Names and values as texts.
    """
    model, task = manifest.get("model") or {}, manifest.get("task") or {}
    trace = trace or {}
    export = (result or {}).get("export") or {}
    difference = export.get("max_abs_logit_difference")
    seconds = {
        name: f"{value:.1f} s" if isinstance(value, (int, float)) else value
        for name, value in (manifest.get("timings") or {}).items()
    }
    rows = [
        ("Model", model.get("name") or trace.get("model")),
        ("Family", model.get("family")),
        ("Blocks", model.get("blocks") or trace.get("blocks")),
        ("Model fingerprint", _short(model.get("fingerprint"))),
        ("Task", task.get("name") or trace.get("task")),
        ("Scoring", task.get("scoring") or trace.get("scoring")),
        ("Task fingerprint", _short(task.get("fingerprint"))),
        ("Prompt format", manifest.get("prompt_format")),
        ("Questions cut on the left", manifest.get("truncated_questions") or None),
        ("Questions with doubled options", manifest.get("duplicated_options") or None),
        ("Questions with an option that begins another", manifest.get("begun_options") or None),
        ("Calibration questions", manifest.get("calibration_questions")),
        ("Evaluation questions", manifest.get("evaluation_questions") or trace.get("questions")),
        ("Seed", manifest.get("seed")),
        ("Search stopped by", (result or {}).get("stopped_by")),
        ("Exported to", export.get("path")),
        ("Export, max |Δ logits|", None if difference is None else f"{difference:.2g}"),
        ("Versions", _joined(manifest.get("versions"))),
        ("Time", _joined(seconds)),
    ]
    return [(name, str(value)) for name, value in rows if value not in (None, "")]


def option_rows(values: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """List the options of a command.

    Args:
        values: The options of the manifest, or None.

    Returns:
        Names and values as texts.
    """
    return [(name, str(value)) for name, value in (values or {}).items()]


def _short(fingerprint: str | None) -> str | None:
    return fingerprint and str(fingerprint)[:12] + ("…" if len(str(fingerprint)) > 12 else "")


def _joined(values: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{name} {value}" for name, value in (values or {}).items() if value)
