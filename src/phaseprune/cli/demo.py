"""``phaseprune demo``: the main job on the bundled model and questions, in under a minute."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from phaseprune.cli import options as o
from phaseprune.cli.execute import load_model
from phaseprune.cli.prune import export_warnings
from phaseprune.cli.screen import Screen, command_line
from phaseprune.errors import UserError

if TYPE_CHECKING:
    from phaseprune.runs.directory import RunDirectory

CALIBRATION, EVALUATION = 96, 300
#: The step that is exported keeps at least this share of the accuracy above chance.
KEEP = 0.9


@o.command
def demo(
    context: typer.Context,
    output: o.OutputOptions,
    out: Annotated[
        Path,
        o.option("--out -o", "Run directory, replaced if it is a demo's.", o.OUTPUT, metavar="RUN"),
    ] = Path("runs/demo"),
    limit: o.Limit = None,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    dtype: o.Dtype = "auto",
) -> None:
    """Trace the bundled model, prune it to the end, export the last good step, write the report."""
    screen = Screen(output.as_json, output.quiet)
    began = time.perf_counter()
    from phaseprune.questions.catalog import load_task
    from phaseprune.runs.directory import RunDirectory

    run = RunDirectory(out)
    former = _former_demo(run)
    context.with_resource(run.lock())
    for path in former:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    decoder = load_model(screen, "demo", {"device": device, "dtype": dtype})
    from phaseprune.pruning.export_run import export_run
    from phaseprune.pruning.prune import prune
    from phaseprune.pruning.result import choose
    from phaseprune.report.page import write_report
    from phaseprune.report.prune import prune_view
    from phaseprune.report.trace import trace_table

    task = load_task("demo", limit=limit)
    screen.say(
        f"the bundled model ({len(decoder.blocks)} blocks) on {EVALUATION} held-out questions; "
        f"blocks are chosen on {CALIBRATION} others, one at a time and to the end"
    )
    with screen.progress() as progress:
        pruning = prune(
            decoder,
            task,
            remove=len(decoder.blocks) - 1,
            calibration=CALIBRATION,
            evaluation=EVALUATION,
            seed=seed,
            out=out,
            arguments=_arguments(len(decoder.blocks)),
            progress=progress,
        )
    good = _last_good_step(pruning.steps)
    run.update(result=pruning.result | choose(pruning.steps, good))
    exported = export_run(decoder, run) if good else None
    report = write_report(out)
    result = pruning.to_dict() | {"result": run.manifest["result"]}
    screen.show([trace_table(result["trace"]), *prune_view(result).terminal()])
    for warning in export_warnings(result):
        screen.note(warning)
    seconds = time.perf_counter() - began
    screen.say(f"report: {report}   ({seconds:.0f} s in all)")
    screen.end(
        result | {"export": exported.to_dict() if exported else None, "seconds": round(seconds, 2)},
        command_line("check", "MODEL", "--task", "QUESTIONS.jsonl"),
        command_line("trace", "MODEL", "--task", "QUESTIONS.jsonl"),
    )


def _last_good_step(steps) -> int:
    """The last step before retained falls below ``KEEP``; the demo goes on to show the cliff."""
    good = 0
    for step in steps[1:]:
        if step.retained is None or step.retained < KEEP:
            break
        good = step.step
    return good


def _arguments(blocks: int) -> str:
    """The command that does what the demo's run did."""
    return command_line(
        "prune",
        "demo",
        "--remove",
        blocks - 1,
        "--calibration",
        CALIBRATION,
        "--evaluation",
        EVALUATION,
    )


def _former_demo(run: RunDirectory) -> list[Path]:
    """The files of a former demo's run, which each demo replaces; none of an empty directory.

    Raises:
        UserError: the directory is anything else, or has files beside those of the run.
    """
    from phaseprune.runs.leftovers import FILES, strangers

    if not run.path.exists():
        return []
    held = strangers(run.path) if run.path.is_dir() else [run.path.name]
    manifest = run.manifest if run.manifest_path.is_file() else {}
    if held and manifest.get("arguments") != _arguments(manifest.get("model", {}).get("blocks", 0)):
        raise UserError(f"{run.path} exists and is not a former demo's run; give another --out")
    if others := [name for name in held if name not in {*FILES, run.model_path.name}]:
        raise UserError(
            f"{run.path} is a former demo's run, which would be replaced, and {others[0]} in it is "
            "not of that; move it away, or give another --out"
        )
    return [run.path / name for name in held]
