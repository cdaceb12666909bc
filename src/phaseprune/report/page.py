"""The report of a run: one HTML file that opens offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import UndefinedError

from phaseprune.errors import UserError
from phaseprune.report import depth_words, dynamics_words, words
from phaseprune.report.collapse import collapse_line, fall_lines, step_marks
from phaseprune.report.frequency_words import frequency_line
from phaseprune.report.guards import guard_lines
from phaseprune.report.item_words import nouns_of, removed_line
from phaseprune.report.lens_words import lens_lines
from phaseprune.report.merge_words import merged_lines
from phaseprune.report.pages import render
from phaseprune.report.parts import Part, read_parts
from phaseprune.report.provenance import option_rows, provenance_rows
from phaseprune.report.run_figures import run_figures
from phaseprune.report.run_files import read_run
from phaseprune.report.trace import phases_line, transition_tile
from phaseprune.runs.atomic import write_text

_MISFITS = (AttributeError, IndexError, KeyError, TypeError, UndefinedError, ValueError)


def write_report(run_dir: str | Path) -> Path:
    """Write `report.html` of a run: self-contained, from whatever the run holds so far.

    Args:
        run_dir: The run directory.

    Returns:
        The path of the report.

    Raises:
        UserError: The run cannot be read, or the report cannot be written.
    """
    run = read_run(run_dir)
    path = Path(run_dir) / "report.html"
    try:
        parts = read_parts(run_dir, run["manifest"])
        page = render_report(run["manifest"], run["trace"], run["steps"], parts)
    except _MISFITS as error:
        raise UserError(
            f"The files in {run_dir} do not fit together ({type(error).__name__}: {error}); "
            "run the command again."
        ) from error
    try:
        write_text(path, page)
    except OSError as error:
        raise UserError(f"Cannot write {path} ({error}); make room or allow writing.") from error
    return path


def render_report(
    manifest: Mapping[str, Any],
    trace: Mapping[str, Any] | None,
    steps: Sequence[Mapping[str, Any]],
    parts: Sequence[Part] = (),
) -> str:
    """Render the page.

    Args:
        manifest: The content of `manifest.json`, or an empty mapping.
        trace: The content of `trace.json`, or None.
        steps: The lines of `steps.jsonl`, maybe none.
        parts: What the run holds of experiments.

    Returns:
        The HTML.
    """
    result = manifest.get("result") or {}
    result = result if steps and "chosen_step" in result else None
    alone = any(part.alone for part in parts)
    return render(
        "report/template.html.j2",
        title=_title(manifest, trace),
        status=_status(manifest, steps),
        sentences=[
            *([] if alone else _sentences(manifest, trace, steps, result)),
            *(line for part in parts for line in part.sentences),
        ],
        tiles=[
            *([] if alone else _tiles(trace, steps, result)),
            *(tile for part in parts for tile in part.tiles),
        ],
        figures=[
            *(figure for part in parts for figure in part.figures),
            *([] if alone else run_figures(trace, steps, result)),
        ],
        tables=[table for part in parts for table in part.tables],
        steps=steps,
        guarded=any(step.get("guard") for step in steps),
        letters=any(step.get("retained_debiased_ci") for step in steps),
        halves=nouns_of(steps, result) != "blocks",
        marks=[step_marks(step, result) for step in steps],
        phase_names=words.PHASE_NAMES,
        provenance=provenance_rows(manifest, trace, result),
        command=manifest.get("arguments"),
        options=option_rows(manifest.get("options")),
    )


def _title(manifest: Mapping[str, Any], trace: Mapping[str, Any] | None) -> str:
    names = [
        (trace or {}).get(key) or (manifest.get(key) or {}).get("name") or f"unnamed {key}"
        for key in ("model", "task")
    ]
    return f"{names[0]} on {names[1]}"


def _status(manifest: Mapping[str, Any], steps: Sequence[Any]) -> str | None:
    status = manifest.get("status", "finished")
    if status == "finished":
        return None
    so_far = f" It has {words.plural(len(steps), 'step')} so far." if steps else ""
    state = "is not finished" if status == "running" else "failed" if status == "failed" else status
    return f"This run {state}.{so_far} The same command again goes on where it was."


def _sentences(
    manifest: Mapping[str, Any],
    trace: Mapping[str, Any] | None,
    steps: Sequence[Mapping[str, Any]],
    result: Mapping[str, Any] | None,
) -> list[str]:
    sentences = []
    if result:
        chance = trace["chance"] if trace else None
        sentences += [
            removed_line(steps, result),
            *merged_lines(steps, result),
            *([chosen["in_words"]] if (chosen := manifest.get("chosen_by")) else []),
            words.accuracy_line(result, chance, manifest.get("evaluation_questions")),
            collapse_line(result, steps),
            *fall_lines(result, steps),
            *guard_lines(result),
            *([line] if (line := dynamics_words.paired_line(result)) else []),
            *dynamics_words.dynamics_lines(
                result, trace and trace["option_labels"], manifest.get("evaluation_questions")
            ),
            *([words.racing_line(result["racing"])] if result.get("racing") else []),
        ]
    elif steps:
        last = steps[-1]
        accuracy = words.percent_with_interval(
            last["evaluation"]["accuracy"], last["evaluation"].get("ci")
        )
        count = sum(step["removed"] is not None for step in steps)
        nouns = nouns_of(steps, None)
        removed = words.plural(count, "block") if nouns == "blocks" else f"{count} {nouns}"
        sentences.append(f"{removed} removed so far; evaluation accuracy is now {accuracy}.")
    if trace:
        if not steps:
            accuracy = [trace["accuracy"][part][-1] for part in ("mean", "ci_low", "ci_high")]
            questions = words.plural(trace["questions"], "question") if "questions" in trace else ""
            sentences.append(
                f"{words.plural(trace['blocks'], 'block')} traced"
                + (f" on {questions}" if questions else "")
                + f": accuracy {words.percent_with_interval(accuracy[0], accuracy[1:])}, "
                f"chance is {words.percent(trace['chance'])} %."
            )
        sentences.insert(0 if not result else 1, phases_line(trace))
        sentences += lens_lines(trace)
        sentences += [line] if (line := frequency_line(trace)) else []
        sentences += depth_words.depth_lines(trace)
    return sentences or ["There is nothing to show yet: no readout is traced, no block removed."]


def _tiles(
    trace: Mapping[str, Any] | None,
    steps: Sequence[Mapping[str, Any]],
    result: Mapping[str, Any] | None,
) -> list[tuple[str, str, str]]:
    """Make the main figures: (name, number, what stands below it)."""
    tiles = []
    if steps:
        full = steps[0]["evaluation"]
        tiles.append(("Full model", *_tile_interval(full["accuracy"], full.get("ci"))))
    elif trace:
        accuracy = trace["accuracy"]
        bounds = (accuracy["ci_low"][-1], accuracy["ci_high"][-1])
        tiles.append(("Accuracy", *_tile_interval(accuracy["mean"][-1], bounds)))
    if result:
        total = len(result["removed"]) + len(result["kept"])
        pruned, nouns = result["pruned"], nouns_of(steps, result)
        tiles += [
            ("Pruned model", *_tile_interval(pruned["accuracy"], pruned["ci"])),
            (f"{nouns[0].upper()}{nouns[1:]} removed", str(len(result["removed"])), f"of {total}"),
            ("Retained", *_tile_interval(result["retained"], result["retained_ci"])),
        ]
        if (left := result.get("retained_debiased")) is not None:
            tile = _tile_interval(left, result["retained_debiased_ci"])
            tiles.append(("Retained, debiased", *tile))
    if trace:
        tiles.append(transition_tile(trace))
    return tiles


def _tile_interval(value: float | None, interval: Sequence[float] | None) -> tuple[str, str]:
    if value is None:
        return words.DASH, "not defined"
    below = "no interval"
    if interval:
        below = f"95 % CI {words.percent(interval[0])} to {words.percent(interval[1])}"
    return f"{words.percent(value)} %", below
