"""The page of a run: one HTML file that opens offline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, UndefinedError

from phaseprune.errors import UserError
from phaseprune.report.ablate import ablation_view
from phaseprune.report.compare import compare_view
from phaseprune.report.heal import healing_view, ladder_view
from phaseprune.report.perturb import perturbation_view
from phaseprune.report.phasewise import phasewise_view
from phaseprune.report.plan import plan_view
from phaseprune.report.prune import prune_view
from phaseprune.report.run_files import RunFiles, read_json, read_run
from phaseprune.report.similarity import similarity_view
from phaseprune.report.svg import inline_svg
from phaseprune.report.trace import trace_view
from phaseprune.report.view import Figure, View
from phaseprune.report.words import plural
from phaseprune.runs.atomic import read_json_lines, write_text
from phaseprune.runs.folders import PRUNE_TASKS

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
    path = run.path / "report.html"
    try:
        page = render_report(run)
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


def render_report(run: RunFiles) -> str:
    """Render the page of a run.

    Args:
        run: What its directory holds.

    Returns:
        The HTML.

    Raises:
        UserError: A file of it cannot be read.
    """
    manifest, view = run.manifest, view_of(run)
    return render(
        "report/template.html.j2",
        title=_title(run),
        status=_status(run),
        view=view,
        figures=[drawn(figure) for figure in view.figures],
        provenance=provenance_rows(manifest, run.trace, run.result),
        command=manifest.get("arguments"),
        options=[(name, str(value)) for name, value in (manifest.get("options") or {}).items()],
    )


def view_of(run: RunFiles) -> View:
    """The view of a run, by its command; of one that is not finished, of what there is.

    Args:
        run: What its directory holds.

    Returns:
        The view.

    Raises:
        UserError: A file of it cannot be read.
    """
    read = VIEWS.get(run.manifest.get("command"))
    if read and (view := read(run)):
        return view
    if run.steps:
        return prune_view(
            {
                "trace": run.trace,
                "steps": run.steps,
                "result": run.result,
                "chosen_by": run.manifest.get("chosen_by"),
            }
        )
    if run.trace:
        return trace_view(run.trace)
    return View(["There is nothing to show yet: no readout is traced, no block removed."])


def _in_file(view: Callable[..., View], name: str, *keys: str, traced: bool = False) -> Any:
    """Reads a view of a result that is a file of its own; None where it is not written yet."""

    def read(run: RunFiles) -> View | None:
        found = read_json(run.path / name, keys)
        if found is None:
            return None
        return view(found, run.trace) if traced else view(found)

    return read


def _several_tasks(run: RunFiles) -> View | None:
    steps = read_json_lines(run.path / "steps.jsonl")
    if not steps:
        return None
    tasks = {
        folder: {"trace": read_run(run.path / folder).trace} for folder in run.manifest["tasks"]
    }
    return prune_view(
        {
            "tasks": tasks,
            "steps": steps,
            "result": run.manifest["result"],
            "chosen_by": run.manifest.get("chosen_by"),
        }
    )


def _phasewise(run: RunFiles) -> View | None:
    result = run.manifest.get("result") or {}
    if "by_removed" not in result:
        return None
    return phasewise_view({"result": result, "trace": run.trace})


#: The command of a manifest -> reads its view, None while there is no result; all other runs show
#: their trace and steps.
VIEWS: dict[str, Callable[[RunFiles], View | None]] = {
    PRUNE_TASKS: _several_tasks,
    "compare": _in_file(compare_view, "compare.json", "model", "blocks", "tasks"),
    "phasewise": _phasewise,
    "perturb": _in_file(perturbation_view, "perturbation.json", "transition", traced=True),
    "ablate": _in_file(ablation_view, "ablation.json", "transition", traced=True),
    "plan": _in_file(plan_view, "plan.json", "transition", traced=True),
    "similarity": _in_file(
        similarity_view,
        "similarity.json",
        "models",
        "questions",
        "minibatches",
        "run",
        "chosen_step",
    ),
    "heal": _in_file(healing_view, "heal.json", "before", "after", "change"),
    "heal --ladder": _in_file(ladder_view, "ladder.json", "depths", "levelling"),
}


def drawn(figure: Figure) -> dict[str, str]:
    """A figure as the templates show it: its name, SVG and caption."""
    svg = inline_svg(figure.draw(), figure.name, figure.caption)
    return {"name": figure.name, "svg": svg, "caption": figure.caption}


def render(template: str, **values: Any) -> str:
    """Render a template.

    Args:
        template: Its path in the package, as ``report/template.html.j2``.
        **values: What it shows.

    Returns:
        The HTML; what cannot be encoded is replaced.
    """
    environment = Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        loader=FunctionLoader(lambda name: files("phaseprune").joinpath(name).read_text("utf-8")),
    )
    page = environment.get_template(template).render(**values)
    return page.encode("utf-8", "replace").decode("utf-8")


def _title(run: RunFiles) -> str:
    model, task = (
        (run.trace or {}).get(key) or (run.manifest.get(key) or {}).get("name") or f"unnamed {key}"
        for key in ("model", "task")
    )
    return f"{model} on {task}"


def _status(run: RunFiles) -> str | None:
    status = run.manifest.get("status", "finished")
    if status == "finished":
        return None
    so_far = f" It has {plural(len(run.steps), 'step')} so far." if run.steps else ""
    state = "is not finished" if status == "running" else "failed" if status == "failed" else status
    return f"This run {state}.{so_far} The same command again goes on where it was."


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


def _short(fingerprint: str | None) -> str | None:
    return fingerprint and str(fingerprint)[:12] + ("…" if len(str(fingerprint)) > 12 else "")


def _joined(values: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{name} {value}" for name, value in (values or {}).items() if value)
