"""``phaseprune report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from phaseprune.cli import options as o
from phaseprune.cli.screen import Screen


@o.command
def report(
    output: o.OutputOptions,
    run: Annotated[Path, o.argument("RUN", "A run directory.")],
    copy: Annotated[
        Path | None,
        o.option(
            "--copy",
            "Write the page to FILE too, alone: without links into RUN.",
            o.OUTPUT,
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """Write RUN/report.html again from the run's files: one page that opens offline."""
    screen = Screen(output.as_json, output.quiet)
    from phaseprune.report.page import write_report
    from phaseprune.report.run_files import read_json

    manifest = read_json(run / "manifest.json", ()) or {}
    of_paper = manifest.get("command") == "paper"
    if of_paper:
        from phaseprune.replication.page import write_paper_report as write_report
    path = write_report(run)
    screen.say(f"report: {path}")
    if copy is not None:
        _copy(run, path, copy, of_paper)
        screen.say(f"copy: {copy}")
    screen.result({"report": str(path), "copy": None if copy is None else str(copy)})


def _copy(run: Path, page: Path, copy: Path, of_paper: bool) -> None:
    """Write the page elsewhere; that of paper without its links."""
    from phaseprune.errors import UserError
    from phaseprune.runs.atomic import write_text

    if of_paper:
        from phaseprune.replication.page import paper_copy

        text = paper_copy(run)
    else:
        text = page.read_text(encoding="utf-8")
    try:
        write_text(copy, text)
    except OSError as error:
        raise UserError(f"Cannot write {copy} ({error}); name another file.") from error
