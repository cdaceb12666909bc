"""``phaseprune demo``: the main job on the bundled model and questions, in under a minute."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Annotated

import typer

from phaseprune.cli import options as o
from phaseprune.cli.console import Screen, command_line, load_checked
from phaseprune.cli.prune import show
from phaseprune.errors import UserError

CALIBRATION, EVALUATION = 96, 300
#: The step that is exported keeps at least this share of the accuracy above chance.
KEEP = 0.9


def demo(
    out: Annotated[
        Path, typer.Option("--out", metavar="RUN", help="Run directory, replaced if it is a demo's")
    ] = Path("runs/demo"),
    limit: o.Limit = None,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    dtype: o.Dtype = "auto",
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Trace the bundled model, prune it to the end, export the last good step, write the report."""
    screen = Screen(as_json, quiet)
    began = time.perf_counter()
    from phaseprune.questions.catalog import load_task
    from phaseprune.runs.directory import RunDirectory

    _make_room(out)
    decoder = load_checked("demo", screen, device=device, dtype=dtype)
    from phaseprune.report.html import write_report
    from phaseprune.report.tables import trace_table
    from phaseprune.search.conclude import choose
    from phaseprune.search.export_run import export_run
    from phaseprune.search.prune import prune

    task = load_task("demo", limit=limit)
    screen.say(
        f"the bundled model ({len(decoder.blocks)} blocks) on {EVALUATION} held-out questions; "
        f"blocks are chosen on {CALIBRATION} others, one at a time and to the end"
    )
    most = len(decoder.blocks) - 1
    arguments = command_line(
        "prune", "demo", "--remove", most, "--calibration", CALIBRATION, "--evaluation", EVALUATION
    )
    with screen.progress() as progress:
        pruning = prune(
            decoder, task, remove=most, calibration=CALIBRATION, evaluation=EVALUATION, seed=seed,
            out=out, arguments=arguments, progress=progress,
        )  # fmt: skip
    run, good = RunDirectory(out), _last_good_step(pruning.steps)
    run.update(result=pruning.result | choose(pruning.steps, good))
    exported = export_run(decoder, run) if good else None
    report = write_report(out)
    result = pruning.to_dict() | {"result": run.manifest["result"]}
    screen.say(trace_table(result["trace"]))
    show(screen, result)
    seconds = time.perf_counter() - began
    screen.say(f"report: {report}   ({seconds:.0f} s in all)")
    screen.next(
        command_line("check", "MODEL", "--task", "QUESTIONS.jsonl"),
        command_line("trace", "MODEL", "--task", "QUESTIONS.jsonl"),
    )
    screen.result(
        result
        | {"export": exported.to_dict() if exported else None, "seconds": round(seconds, 2)}
    )


def _last_good_step(steps) -> int:
    """The last step before retained falls below ``KEEP``; the demo goes on to show the cliff."""
    good = 0
    for step in steps[1:]:
        if step.retained is None or step.retained < KEEP:
            break
        good = step.step
    return good


def _make_room(out: Path) -> None:
    """Each demo starts afresh; only a former demo's or an empty directory is replaced."""
    from phaseprune.runs.directory import RunDirectory

    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    is_run = (out / "manifest.json").is_file()
    if not is_run or RunDirectory(out).manifest["model"]["name"] != "demo":
        raise UserError(f"{out} exists and is not a former demo's run; give another --out")
    shutil.rmtree(out)
